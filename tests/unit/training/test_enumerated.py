"""Estimates of the gradient against every answer there is, in float64: a vocabulary of five, answers of three."""

import math

import numpy as np
import pytest
import torch
from support import enumerated
from support.enumerated import V, by_prefix, every_answer, gradient_of_kl, listed, log_probabilities, mixed

from ablate.losses import LOSSES, parse
from ablate.study.policy import Policy
from ablate.training.head import Head
from ablate.training.loss import Objective, Scratch, fused_loss
from ablate.training.policy_gradient import Answers, policy_gradient_loss
from ablate.training.teacher_outputs import TeacherHidden

WORLD = enumerated.make_world()
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
    sampled = Answers(answers.labels_M, answers.rows_M)
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


def drawn(how, num, seed):
    """-> answers, each token drawn by inverting the distribution (S x L)."""
    cumulative_PV = np.cumsum(sampled_from(how).exp().numpy(), axis=1)
    uniform_SL = np.random.default_rng(seed).random((num, enumerated.L))
    answers_SL, prefix_S = np.empty((num, enumerated.L), np.int64), np.zeros(num, np.int64)
    for place in range(enumerated.L):
        answers_SL[:, place] = (cumulative_PV[prefix_S, :-1] <= uniform_SL[:, place, None]).sum(1)
        prefix_S = prefix_S * V + 1 + answers_SL[:, place]
    return torch.from_numpy(answers_SL)


def furthest(how, answers_SL, expected_PV):
    """-> the largest distance of the mean gradient of answers that were drawn, in its standard errors."""
    answers = listed(answers_SL)
    grad_MV = estimated(how, answers).grad_MD
    alike_S = torch.ones(answers.num_rows, dtype=torch.float64) / answers.num_rows
    mean_PV, square_PV = by_prefix(grad_MV, answers, alike_S), by_prefix(grad_MV**2, answers, alike_S)
    error_PV = ((square_PV - mean_PV**2).clamp(min=0) / answers.num_rows).sqrt()
    return float(((mean_PV - expected_PV).abs() / (error_PV + 1e-9)).max())  # without an error where all are alike


@pytest.mark.parametrize("how", UNBIASED.values(), ids=UNBIASED)
def test_a_hundred_thousand_sampled_answers_come_to_the_exact_gradient(how):
    answers_SL = enumerated.cut_at_eos(drawn(how, NUM_SAMPLES, seed=1))
    assert furthest(how, answers_SL, gradient_of_kl(WORLD, listed(every_answer(ends=True)))) < 4


@pytest.mark.parametrize("how", OTHERS.values(), ids=OTHERS)
def test_a_hundred_thousand_sampled_answers_come_to_what_the_formula_says(how):
    answers_SL = enumerated.cut_at_eos(drawn(how, NUM_SAMPLES, seed=2))
    assert furthest(how, answers_SL, defined(how, listed(every_answer(ends=True)))) < 4


def test_samples_tell_a_wrong_gradient():
    """Weights left out, of answers that the teacher wrote in part."""
    answers_SL = enumerated.cut_at_eos(drawn(policy(mix=MIX), NUM_SAMPLES, seed=1))
    assert furthest(policy(), answers_SL, gradient_of_kl(WORLD, listed(every_answer(ends=True)))) > 20


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
