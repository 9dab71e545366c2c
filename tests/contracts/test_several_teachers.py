"""Contract of every distillation loss against several teachers, by both means, to a dense reference in float64."""

import pytest
import torch
from contracts.test_losses import REFERENCES, distance_to_a_kink, losses
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from ablate.losses import LOSSES, parse
from ablate.training.head import Head
from ablate.training.loss import Objective, fused_loss
from ablate.training.teacher_outputs import TeacherHidden, TeachersHidden

M, V = 9, 23
NAMES = [name for name in LOSSES if not LOSSES[name].crosses_tokenizers]

# M loss-bearing tokens, D hidden width, V vocabulary of the tokenizer


def model(seed, width, padding, dtype=torch.float64):
    """-> hidden states and a head with rows beyond the tokenizer that would win every softmax."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(V + padding, width, generator=generator, dtype=torch.float64) * 2 / width**0.5
    weight[V:] = 1e3
    hidden = torch.randn(M, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(V + padding, generator=generator, dtype=torch.float64)
    return hidden.to(dtype), Head(weight.to(dtype), V, bias.to(dtype))


def logits(hidden, head):
    return (hidden.double() @ head.weight.double().T + head.bias.double())[:, :V]


@st.composite
def cases(draw, name):
    num, seed = draw(st.integers(2, 3)), draw(st.integers(0, 2**20))
    shapes = [(draw(st.integers(1, 6)), draw(st.integers(0, 3))) for _ in range(num + 1)]
    raw = [draw(st.floats(0.05, 1)) for _ in range(num)]
    kd_ratio, temperature = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.5, 1.0, 3.0]))
    objective = Objective(kd_ratio, draw(losses(name)), temperature, draw(st.booleans()))
    weights = tuple(weight / sum(raw) for weight in raw)
    return objective, seed, shapes, weights, draw(st.sampled_from(["probabilities", "losses"]))


def dense(objective, models, labels, weights, mean):
    """-> (class loss, KD loss, teachers' entropy, gradient in the student's hidden states), largest |log p/q|."""
    (hidden, head), *teachers = models
    leaf = hidden.double().requires_grad_()
    student = logits(leaf, head)
    q = (student / objective.temperature).softmax(-1)
    each = [(logits(*teacher) / objective.temperature).softmax(-1) for teacher in teachers]
    mixed = sum(weight * p for weight, p in zip(weights, each, strict=True))
    compared = list(zip(weights, each, strict=True)) if mean == "losses" else [(1.0, mixed)]
    for _, p in compared:
        rounding = 1e-6 * (1 - torch.minimum(p, q).log().min())
        assume(bool((distance_to_a_kink(objective.kd, p, q) > rounding).all()))
    kd = sum(weight * REFERENCES[objective.kd.name](p, q, objective.kd).sum() for weight, p in compared)
    entropy = sum(weight * torch.special.entr(p).sum() for weight, p in compared)
    class_loss = cross_entropy(student, labels, reduction="sum")
    scale = objective.temperature**2 if objective.scale_by_t2 else 1
    total = (1 - objective.kd_ratio) * class_loss + objective.kd_ratio * scale * kd
    ratio = max(float((p / q).detach().log().abs().max()) for _, p in compared)
    return (class_loss.detach(), kd.detach(), entropy, torch.autograd.grad(total, leaf)[0]), ratio


def ours(objective, models, labels, weights, mean):
    (hidden, head), *teachers = models
    outputs = TeachersHidden(tuple(TeacherHidden(*teacher) for teacher in teachers), weights, mean)
    fused = fused_loss(objective, hidden, head, labels, outputs)
    return fused.sums.class_loss, fused.sums.kd_loss, fused.sums.teacher_entropy, fused.grad_MD


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_value_and_gradient_are_those_of_the_weighted_mean(name, data):
    objective, seed, shapes, weights, mean = data.draw(cases(name))
    labels = torch.arange(M) * 7 % V
    wide, narrow = (
        [model(seed + i, *shape, dtype=dtype) for i, shape in enumerate(shapes)]
        for dtype in (torch.float64, torch.float32)
    )
    exact, _ = dense(objective, wide, labels, weights, mean)
    for mine, theirs in zip(ours(objective, wide, labels, weights, mean), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    rounded, ratio = dense(objective, narrow, labels, weights, mean)
    for mine, theirs in zip(ours(objective, narrow, labels, weights, mean), rounded, strict=True):
        atol = 5e-6 * (1 + ratio) * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("mean", ["probabilities", "losses"])
@pytest.mark.parametrize("name", NAMES)
def test_twins_are_one_teacher(name, mean):
    objective = Objective(0.4, parse(name), 2.0)
    student, teacher, labels = model(1, 5, 2), TeacherHidden(*model(2, 3, 1)), torch.arange(M)
    twins = TeachersHidden((teacher, teacher), (0.3, 0.7), mean)
    one, two = (fused_loss(objective, *student, labels, outputs) for outputs in (teacher, twins))
    torch.testing.assert_close(torch.stack(two.sums[:3]), torch.stack(one.sums[:3]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(two.grad_MD, one.grad_MD, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mean", ["probabilities", "losses"])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_finite_where_a_teacher_is_surer_than_float32_can_say(name, mean):
    head = Head(None, 5)
    sure = TeacherHidden(torch.eye(5) * 1e4, head)
    other = TeacherHidden(-torch.eye(5) * 1e4, head)
    outputs = TeachersHidden((sure, other), (1e-3, 1 - 1e-3), mean)
    fused = fused_loss(Objective(0.5, parse(name)), torch.ones(5, 5), head, torch.arange(5), outputs)
    assert bool(torch.stack(fused.sums[:3]).isfinite().all())
    assert bool(fused.grad_MD.isfinite().all())
