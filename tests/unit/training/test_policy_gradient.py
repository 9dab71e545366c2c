"""The policy gradient in the training loop: through real models, under every sort of head, however a step is cut."""

import math
from statistics import fmean

import pytest
import torch
import transformers
from support import tiny_models as tiny
from support.enumerated import V, every_answer
from support.reference import LENGTHS, PROMPTS, recipe, relative, training_of

from ablate.data.masks import TokenRow
from ablate.data.tokens import lay
from ablate.losses import LOSSES, parse
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.study.policy import Policy
from ablate.training import adapters, loss_chunks, trainable
from ablate.training.batches import StepRows
from ablate.training.head import Head
from ablate.training.loss import CLASS_LOSS, Objective, Scratch, own_objective
from ablate.training.model_parts import split_model
from ablate.training.policy_gradient import Answers, policy_gradient_loss
from ablate.training.step_loss import accumulate
from ablate.training.teacher_outputs import TeacherHidden
from ablate.training.training import Training

PROMPT = [0, 3]
POLICIES = {
    "exact": Policy(1.0, True, False, None),
    "sampled": Policy(1.0, False, False, None),
    "minillm": Policy(1.0, True, True, 1.1, 0.2),
    "whole weight": Policy(0.9, True, False, None, 0.2),
    "opd": Policy(0.0, False, False, None),
}


def small_model(seed):
    """GPT-2, none of whose parts rounds to float32."""
    torch.manual_seed(seed)
    settings = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V, **settings)).double().eval()


def small_training(rows, own):
    student = small_model(1)
    weights = trainable.make_trainable(student, recipe(lora=None), 0, adapters.Origin())
    teacher = split_model(small_model(2), V)
    return Training(recipe(lora=None), 0, rows, split_model(student, V), weights, CLASS_LOSS, own, teacher)


def with_answers(answers_SL):
    """-> a row of each answer, after the same prompt."""
    return lay(TokenRow([*PROMPT, *answer], [False, False, True, True, True]) for answer in answers_SL.tolist())


def listed_log_probabilities(model, answers_SL):
    """-> of each answer's tokens (S x L x V), by transformers alone."""
    prompts = torch.tensor(PROMPT).expand(len(answers_SL), -1)
    return model(input_ids=torch.cat([prompts, answers_SL], 1)).logits[:, 1:-1].log_softmax(-1)


def mean_gradient(training, probabilities_S):
    """-> of what a step adds for each row alone, weighted."""
    total = {name: torch.zeros_like(weight) for name, weight in training.trainable.weights.items()}
    for row, probability in enumerate(probabilities_S.tolist()):
        training.trainable.discard_grads()
        accumulate(training, StepRows(1, training.rows, (row,), frozenset({row})), 100, "cpu")
        for name, weight in training.trainable.weights.items():
            total[name] += probability * weight.grad
    return total


def exact_gradient(lowered):
    """`lowered`: (S x L of log q, of log p at the tokens, S x L x V of both) -> scalar. -> its gradient."""
    answers_SL = every_answer(ends=False)
    student, teacher = small_model(1), small_model(2)
    logq_SLV = listed_log_probabilities(student, answers_SL)
    with torch.no_grad():
        logp_SLV = listed_log_probabilities(teacher, answers_SL)
    at = answers_SL[..., None]
    lowered(logq_SLV.gather(2, at)[..., 0], logp_SLV.gather(2, at)[..., 0], logq_SLV, logp_SLV).backward()
    return {name: weight.grad for name, weight in student.named_parameters()}


def probabilities_of_answers():
    answers_SL = every_answer(ends=False)
    with torch.no_grad():
        logq_SLV = listed_log_probabilities(small_model(1), answers_SL)
    return logq_SLV.gather(2, answers_SL[..., None])[..., 0].sum(1).exp()


@pytest.mark.parametrize("name", ["exact", "sampled"])
def test_a_models_mean_gradient_over_every_answer_is_that_of_the_reverse_kl_of_whole_answers(name):
    own = Objective(1.0, parse("reverse_kl"), policy=POLICIES[name])
    training = small_training(with_answers(every_answer(ends=False)), own)
    mean = mean_gradient(training, probabilities_of_answers())
    exact = exact_gradient(lambda q, p, *_: (q.sum(1).exp() * (q.sum(1) - p.sum(1))).sum())
    assert relative(mean, exact) < 1e-9


@pytest.mark.parametrize("name", [name for name in LOSSES if not LOSSES[name].crosses_tokenizers])
def test_a_models_mean_gradient_of_a_divergence_is_gkds_over_every_answer(name):
    by = parse(name)
    training = small_training(with_answers(every_answer(ends=False)), Objective(1.0, by))
    mean = mean_gradient(training, probabilities_of_answers())
    exact = exact_gradient(lambda q, _p, q_SLV, p_SLV: (q.sum(1).exp().detach()[:, None] * by(q_SLV, p_SLV)).sum())
    assert relative(mean, exact) < 1e-9


def step_of(training, budget, own):
    training.trainable.discard_grads()
    sums = accumulate(training, training.rows_of(1)._replace(own=own), budget, "cpu")
    return sums.own, {name: weight.grad.clone() for name, weight in training.trainable.weights.items()}


@pytest.mark.parametrize("how", POLICIES.values(), ids=POLICIES)
def test_a_policy_gradient_does_not_depend_on_how_a_step_is_cut_or_the_size_of_chunks(how, monkeypatch):
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    training = training_of("llama", CLASS_LOSS, rows)
    training = Training(**vars(training) | {"own_objective": Objective(1.0, parse("reverse_kl"), policy=how)})
    own = frozenset(training.rows_of(1).indices)
    whole_sums, whole = step_of(training, 10_000, own)
    for budget, size in ((1, 256), (40, 256), (10_000, 3)):
        monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (size, size))
        sums, grads = step_of(training, budget, own)
        assert relative(grads, whole) < 1e-5
        for part in ("num_tokens", "kd_loss", "reverse_kl", "teacher_entropy", "entropy"):
            assert getattr(sums, part) == pytest.approx(getattr(whole_sums, part), rel=1e-5)
        assert sums.kd_loss == pytest.approx(sums.reverse_kl, rel=1e-6)


def test_rows_that_the_student_did_not_write_are_learnt_from_as_ever():
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    plain = training_of("llama", Objective(0.3, parse("forward_kl")), rows)
    both = Training(**vars(plain) | {"own_objective": Objective(1.0, parse("reverse_kl"), policy=POLICIES["exact"])})
    own = frozenset(plain.rows_of(1).indices[:3])
    others = tuple(index for index in plain.rows_of(1).indices if index not in own)
    plain.trainable.discard_grads()
    accumulate(plain, StepRows(1, rows, others), 40, "cpu")
    of_others = {name: weight.grad.clone() for name, weight in plain.trainable.weights.items()}
    both.trainable.discard_grads()
    accumulate(both, StepRows(1, rows, tuple(own), own), 40, "cpu")
    of_own = {name: weight.grad.clone() for name, weight in both.trainable.weights.items()}
    _, together = step_of(both, 40, own)
    assert relative(together, {name: of_others[name] + of_own[name] for name in together}) < 1e-5


M, D, WORDS = 23, 6, 11
"""Tokens, width and vocabulary of what follows."""
ROWS = torch.tensor([0] * 9 + [1] * 1 + [4] * 13)


def randn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN, LABELS = randn(M, D, seed=0), torch.arange(M) * 7 % WORDS
TEACHER = TeacherHidden(randn(M, D, seed=1), Head(randn(WORDS + 2, D, seed=2), WORDS))
WEIGHT = randn(WORDS + 3, D, seed=3)
HEADS = {
    "plain": Head(WEIGHT, WORDS),
    "scaled": Head(WEIGHT, WORDS, scale=0.3),
    "biased": Head(WEIGHT, WORDS, bias=randn(WORDS + 3, seed=4)),
    "capped": Head(WEIGHT, WORDS, softcap=2.0),
    "trained": Head(torch.nn.Parameter(WEIGHT.clone()), WORDS),
}


def surrogate(how, logq_MV, logp_MV):
    """-> (a scalar whose gradient is the estimate, the reverse KL summed), by loops over the answers' tokens."""
    kl_M = (logq_MV.exp() * (logq_MV - logp_MV)).sum(1)
    q_M, p_M = logq_MV[range(M), LABELS], logp_MV[range(M), LABELS]
    reward_M = (p_M - q_M).detach()
    mixture_M = (how.mix * p_M.exp() + (1 - how.mix) * q_M.exp()).detach()
    weight_M = (q_M.detach().exp() / mixture_M).tolist()
    total = 0
    for row in ROWS.unique().tolist():
        tokens = torch.nonzero(row == ROWS)[:, 0].tolist()
        whole = math.prod(weight_M[token] for token in tokens)
        for place, token in enumerate(tokens):
            later = [how.discount ** (k + 1) * float(reward_M[i]) for k, i in enumerate(tokens[place + 1 :])]
            rest = sum(later) / (max(1, len(later)) if how.normalize_length else 1)
            single = kl_M[token] if how.is_exact else -reward_M[token] * q_M[token]
            weight = whole if how.clip is None else min(how.clip, weight_M[token])
            total = total + weight * (single - rest * q_M[token])
    return total, float(kl_M.detach().sum())


@pytest.mark.parametrize("how", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_gradient_is_that_of_the_surrogate_under_every_sort_of_head(head, how, monkeypatch):
    monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (5, 5))
    if head.is_trained:
        head.weight.grad = None
    ours = policy_gradient_loss(how, HIDDEN, head, Answers(LABELS, (9, 1, 13)), TEACHER, Scratch())
    leaf_MD, weight_VD = HIDDEN.clone().requires_grad_(), head.weight.detach().clone().requires_grad_()
    logits_MV = head.scale * (leaf_MD @ weight_VD[:WORDS].T + (0 if head.bias is None else head.bias[:WORDS]))
    logits_MV = head.softcap * (logits_MV / head.softcap).tanh() if head.softcap else logits_MV
    teacher_MV = TEACHER.head.logits(TEACHER.hidden_MD).log_softmax(1)
    total, kl = surrogate(how, logits_MV.log_softmax(1), teacher_MV)
    grad_MD, grad_VD = torch.autograd.grad(total, (leaf_MD, weight_VD))
    torch.testing.assert_close(ours.grad_MD, grad_MD)
    assert float(ours.sums.kd_loss) == pytest.approx(kl, rel=1e-12)
    if head.is_trained:
        torch.testing.assert_close(head.weight.grad, grad_VD)


def test_what_is_recorded_is_the_same_whatever_the_estimate():
    sums = [
        policy_gradient_loss(how, HIDDEN, HEADS["plain"], Answers(LABELS, (9, 1, 13)), TEACHER, Scratch()).sums
        for how in POLICIES.values()
    ]
    for one in sums:
        torch.testing.assert_close(torch.stack(one[:3]), torch.stack(sums[0][:3]), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "opd"}, Policy(0.0, False, True, 2.0)),
        ({"method": "minillm"}, Policy(1.0, True, True, 2.0, 0.2)),
        ({"method": "minillm", "policy_gradient": {"clip": "none"}}, Policy(1.0, True, True, None, 0.2)),
        ({"method": "minillm", "answers": "student"}, Policy(1.0, True, True, 2.0)),
        ({"answers": "student", "loss": "reverse_kl"}, None),
    ],
)
def test_a_recipe_says_how_its_gradient_is_estimated(settings, expected):
    assert own_objective(recipe(**settings)).policy == expected


@pytest.mark.parametrize("method", ["minillm", "opd"])
def test_a_distillation_by_policy_gradient_brings_the_student_nearer_to_its_teacher(method, tmp_path):
    rows = tiny.random_rows([9, 12, 8, 10], [3, 5, 2, 4])
    more = {"batch_size": 4, "max_steps": 40, "lr": 2e-2, "warmup_steps": 0, "schedule": "constant"}
    stage = KINDS["distill"]
    settings = {"recipe": more | {"method": method, "sampling": {"max_new_tokens": 6, "num_answers": 4}}}
    settings = stage.Settings.model_validate(settings | {"dtype": "float32", "seed": 0})
    job = tiny.job(tmp_path / "kd", settings, **tiny.stage_inputs(tmp_path, rows, tiny.random_rows([7, 8], [2, 3])))
    stage.run(job)
    curve = [*read_metrics(job.metrics.path)]
    for record in curve:
        assert record["class_loss"] is None
        assert record["loss"] == pytest.approx(record["kd_loss"], rel=1e-12)
        assert record["kd_loss"] == pytest.approx(record["own_reverse_kl"], rel=1e-6)
    first, last = (fmean(record["kd_loss"] for record in part) for part in (curve[:5], curve[-5:]))
    assert last < 0.7 * first
