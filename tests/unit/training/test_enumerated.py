"""Estimates of the gradient against every answer there is, in float64: a vocabulary of five, answers of three."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from support import enumerated
from support.enumerated import V, by_prefix, every_answer, gradient_of_kl, listed, log_probabilities, mixed

from ablate.losses import LOSSES, parse
from ablate.study.answer_settings import Sampling
from ablate.study.policy import Policy
from ablate.training.head import Head
from ablate.training.loss import Objective, Scratch, fused_loss
from ablate.training.policy_gradient import Answers, policy_gradient_loss
from ablate.training.prompts import Prompt
from ablate.training.teacher_outputs import TeacherHidden
from ablate.training.token_draws import Draws, next_tokens

WORLD = enumerated.make_world(spread=0.7)
HEAD = Head(None, V)
MIX = 0.3
CLIP = 1.1
"""Below 1 / (1 - MIX), so that it clips."""
NUM_SAMPLES = 100_000


def policy(discount=1.0, exact=True, normalize=False, clip=None, mix=0.0):
    return Policy(discount, exact, normalize, clip, mix)


def at(table_PV, answers):
    return table_PV[answers.prefixes_M]


def estimated(how, answers):
    """-> the engine's gradient at each token (M x V)."""
    teacher = TeacherHidden(at(WORLD.teacher_PV, answers), HEAD)
    sampled = Answers(answers.labels_M, tuple(torch.bincount(answers.rows_M).tolist()))
    return policy_gradient_loss(how, at(WORLD.student_PV, answers), HEAD, sampled, teacher, Scratch())


def sampled_from(how):
    """-> log-probabilities by prefix of what answers are drawn from."""
    return mixed(WORLD, how.mix) if how.mix else WORLD.student_PV.log_softmax(1)


def probabilities(how, answers):
    return answers.summed(log_probabilities(sampled_from(how), answers)).exp()


def defined(how, answers):
    """-> the gradient whose estimate it is, token by token as it is written down, differentiated by torch."""
    leaf_PV = WORLD.student_PV.clone().requires_grad_()
    logq_PV, logp_PV, logm_PV = leaf_PV.log_softmax(1), WORLD.teacher_PV.log_softmax(1), sampled_from(how)
    kl_P = (logq_PV.exp() * (logq_PV - logp_PV)).sum(1)
    total = 0
    for row, probability in enumerate(probabilities(how, answers).tolist()):
        tokens = torch.nonzero(answers.rows_M == row)[:, 0].tolist()
        steps = [(int(answers.prefixes_M[token]), int(answers.labels_M[token])) for token in tokens]
        rewards = [float((logp_PV - logq_PV).detach()[step]) for step in steps]
        weights = [float((logq_PV - logm_PV).detach()[step].exp()) for step in steps]
        weights = [math.prod(weights)] * len(steps) if how.clip is None else [min(w, how.clip) for w in weights]
        for place, (prefix, label) in enumerate(steps):
            later = rewards[place + 1 :]
            long_term = sum(how.discount ** (k + 1) * reward for k, reward in enumerate(later))
            long_term /= len(later) if how.normalize_length and later else 1
            logq = logq_PV[prefix, label]
            single = kl_P[prefix] if how.is_exact else -rewards[place] * logq
            total = total + probability * weights[place] * (single - long_term * logq)
    return torch.autograd.grad(total, leaf_PV)[0]


UNBIASED = {
    "exact": policy(),
    "sampled": policy(exact=False),
    "mixed": policy(mix=MIX),
    "mixed, sampled": policy(exact=False, mix=MIX),
}
OTHERS = {
    "MiniLLM": policy(normalize=True, clip=2.0, mix=MIX),
    "clipped": policy(clip=CLIP, mix=MIX),
    "clipped, sampled, a length each": policy(exact=False, normalize=True, clip=CLIP, mix=MIX),
    "a length each": policy(normalize=True),
    "a length each, the whole weight": policy(normalize=True, mix=MIX),
    "discounted": policy(discount=0.7),
    "discounted, a length each": policy(discount=0.7, normalize=True),
    "opd": policy(discount=0.0, exact=False),
    "each token for itself": policy(discount=0.0),
    "each token for itself, clipped": policy(discount=0.0, clip=CLIP, mix=MIX),
    "each token for itself, the whole weight": policy(discount=0.0, mix=MIX),
}


@pytest.mark.parametrize("ends", [False, True], ids=["of one length", "ended by eos"])
@pytest.mark.parametrize("how", UNBIASED.values(), ids=UNBIASED)
def test_the_estimate_is_on_average_the_gradient_of_the_reverse_kl_of_whole_answers(how, ends):
    answers = listed(every_answer(ends=ends))
    probabilities_S = probabilities(how, answers)
    assert answers.num_rows == (85 if ends else 125)
    assert float(probabilities_S.sum()) == pytest.approx(1, abs=1e-12)
    mean_PV = by_prefix(estimated(how, answers).grad_MD, answers, probabilities_S)
    torch.testing.assert_close(mean_PV, gradient_of_kl(WORLD, answers), rtol=0, atol=1e-9)


@pytest.mark.parametrize("ends", [False, True], ids=["of one length", "ended by eos"])
@pytest.mark.parametrize("how", [*UNBIASED.values(), *OTHERS.values()], ids=[*UNBIASED, *OTHERS])
def test_every_estimate_is_on_average_what_its_formula_says(how, ends):
    answers = listed(every_answer(ends=ends))
    mean_PV = by_prefix(estimated(how, answers).grad_MD, answers, probabilities(how, answers))
    torch.testing.assert_close(mean_PV, defined(how, answers), rtol=0, atol=1e-9)


@cache
def counted_numbers():
    """-> those by which a training draws the tokens of its answers (S x L)."""
    draws = Draws(seed=1, step=1)
    return torch.from_numpy(np.stack([draws.uniforms(Prompt(row, 0, ()), enumerated.L) for row in range(NUM_SAMPLES)]))


def drawn(how):
    """-> answers as a training's student writes them, alone or with its teacher (S x L)."""
    tables = (WORLD.teacher_PV, WORLD.student_PV) if how.mix else (WORLD.student_PV,)
    sampling = Sampling(mix=how.mix or 0.5)
    answers_SL, prefix_S = torch.empty(NUM_SAMPLES, enumerated.L, dtype=torch.long), torch.zeros(NUM_SAMPLES).long()
    for place in range(enumerated.L):
        numbers_S = counted_numbers()[:, place]
        answers_SL[:, place] = next_tokens([table[prefix_S] for table in tables], sampling, numbers_S)
        prefix_S = prefix_S * V + 1 + answers_SL[:, place]
    return enumerated.cut_at_eos(answers_SL)


def furthest(how, by):
    """-> the largest distance of the mean gradient of sampled answers from what every answer comes to by a formula.

    `how` the answers are drawn and the gradient is estimated; in standard errors, which every answer tells too. No
    prefix is twice in an answer, so that its square is that of one token.
    """
    every, sampled = listed(every_answer(ends=True)), listed(drawn(how))
    exact_PV, probabilities_S = by(how, every), probabilities(how, every)
    square_PV = by_prefix(estimated(how, every).grad_MD ** 2, every, probabilities_S)
    error_PV = ((square_PV - exact_PV**2).clamp(min=0) / NUM_SAMPLES).sqrt()
    alike_S = torch.ones(NUM_SAMPLES, dtype=torch.float64) / NUM_SAMPLES
    mean_PV = by_prefix(estimated(how, sampled).grad_MD, sampled, alike_S)
    return float(((mean_PV - exact_PV).abs() / (error_PV + 1e-9)).max())  # without an error where all are alike


def of_whole_answers(_, every):
    return gradient_of_kl(WORLD, every)


@pytest.mark.parametrize("how", UNBIASED.values(), ids=UNBIASED)
def test_a_hundred_thousand_sampled_answers_come_to_the_exact_gradient(how):
    assert furthest(how, of_whole_answers) < 4


@pytest.mark.parametrize("name", ["MiniLLM", "clipped", "clipped, sampled, a length each", "opd"])
def test_a_hundred_thousand_sampled_answers_come_to_what_the_formula_says(name):
    assert furthest(OTHERS[name], defined) < 4


def test_samples_tell_a_wrong_gradient(monkeypatch):
    """Weights left out, of answers that the teacher wrote in part."""
    monkeypatch.setattr("ablate.training.policy_gradient._log_weight", lambda _, known: torch.zeros_like(known.q_M))
    assert furthest(UNBIASED["mixed"], of_whole_answers) > 20


@pytest.mark.parametrize("name", [name for name in LOSSES if not LOSSES[name].crosses_tokenizers])
def test_a_divergence_on_own_answers_is_gkds_with_no_gradient_through_the_sampling(name):
    """Sum over answers of q(y) sum_t D(p, q), q(y) held constant (Agarwal et al. 2023, 2306.13649, eq. 4)."""
    answers, loss = listed(every_answer(ends=True)), parse(name)
    teacher = TeacherHidden(at(WORLD.teacher_PV, answers), HEAD)
    fused = fused_loss(Objective(1.0, loss), at(WORLD.student_PV, answers), HEAD, answers.labels_M, teacher)
    leaf_PV = WORLD.student_PV.clone().requires_grad_()
    visits_P = torch.zeros(enumerated.P, dtype=torch.float64)
    probabilities_S = probabilities(policy(), answers)
    visits_P.index_add_(0, answers.prefixes_M, probabilities_S[answers.rows_M])
    (exact_PV,) = torch.autograd.grad((visits_P * loss(leaf_PV, WORLD.teacher_PV)).sum(), leaf_PV)
    torch.testing.assert_close(by_prefix(fused.grad_MD, answers, probabilities_S), exact_PV, rtol=0, atol=1e-9)


def test_without_later_rewards_the_exact_estimate_is_gkds_reverse_kl():
    answers = listed(every_answer(ends=True))
    teacher = TeacherHidden(at(WORLD.teacher_PV, answers), HEAD)
    objective = Objective(1.0, parse("reverse_kl"))
    gkd = fused_loss(objective, at(WORLD.student_PV, answers), HEAD, answers.labels_M, teacher)
    ours = estimated(policy(discount=0.0), answers)
    torch.testing.assert_close(ours.grad_MD, gkd.grad_MD)
    torch.testing.assert_close(torch.stack(ours.sums[:3]), torch.stack(gkd.sums[:3]))
