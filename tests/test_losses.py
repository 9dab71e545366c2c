"""Contract of every distillation loss in the registry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.losses import LOSSES, parse
from ablate.model import digest, identity

NAMES = [*LOSSES]


def kl(a, b):
    return (a * (a / b).log()).sum(-1)


# written from the papers, on probabilities, in float64
REFERENCES = {
    "forward_kl": lambda p, q: kl(p, q),
    "reverse_kl": lambda p, q: kl(q, p),
    "symmetric_kl": lambda p, q: 0.5 * kl(p, q) + 0.5 * kl(q, p),
    "jsd": lambda p, q: 0.5 * kl(p, 0.5 * p + 0.5 * q) + 0.5 * kl(q, 0.5 * p + 0.5 * q),
    "skew_forward_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.9 * p + 0.1 * q),
    "tvd": lambda p, q: 0.5 * (p - q).abs().sum(-1),
}


def test_every_loss_has_a_reference_here():
    assert set(NAMES) == set(REFERENCES)


def logits(seed, *, spread=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(5, 17, generator=generator, dtype=torch.float64) * spread).to(dtype)


def value_and_grad(loss, student, teacher):
    leaf = student.detach().requires_grad_()
    value = loss(leaf, teacher)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.01, 6))
def test_value_and_gradient_are_the_papers(name, seed, spread):
    student, teacher = logits(seed, spread=spread), logits(seed + 1, spread=spread)
    exact = value_and_grad(lambda s, t: REFERENCES[name](t.softmax(-1), s.softmax(-1)), student, teacher)
    ours = value_and_grad(parse(name), student, teacher)
    torch.testing.assert_close(ours[0], exact[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours[1], exact[1], rtol=1e-9, atol=1e-12)
    narrow = value_and_grad(parse(name), student.float(), teacher.float())
    torch.testing.assert_close(narrow[0].double(), exact[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(narrow[1].double(), exact[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_and_its_gradient_are_zero_where_student_and_teacher_agree(name):
    same = logits(3, dtype=torch.float32)
    value, grad = value_and_grad(parse(name), same, same.clone())
    torch.testing.assert_close(value, torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(grad, torch.zeros(5, 17), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_never_negative(name):
    assert bool((parse(name)(logits(5), logits(6)) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_finite_in_bfloat16_and_for_the_surest_of_models(name):
    for spread in (1.0, 50.0):
        student, teacher = (logits(seed, spread=spread, dtype=torch.bfloat16) for seed in (1, 2))
        value, grad = value_and_grad(parse(name), student, teacher)
        assert bool(value.isfinite().all())
        assert bool(grad.isfinite().all())


def test_no_two_losses_share_a_key():
    spelt = [*NAMES, {"name": "jsd", "beta": 0.1}, {"name": "symmetric_kl", "beta": 0.1}]
    keys = {digest(identity(parse(each))) for each in spelt}
    assert len(keys) == len(spelt)


@pytest.mark.parametrize("name", ["jsd", "symmetric_kl", "skew_forward_kl", "skew_reverse_kl"])
@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, math.nan])
def test_a_weight_that_leaves_one_model_out_is_refused(name, beta):
    with pytest.raises(ValueError, match="beta"):
        parse({"name": name, "beta": beta})


def test_beta_is_the_teachers_share():
    student, teacher = logits(1), logits(2)
    p, q = teacher.softmax(-1), student.softmax(-1)
    m = 0.3 * p + 0.7 * q
    for name, exact in {
        "jsd": 0.3 * kl(p, m) + 0.7 * kl(q, m),
        "symmetric_kl": 0.3 * kl(p, q) + 0.7 * kl(q, p),
        "skew_forward_kl": kl(p, m),
        "skew_reverse_kl": kl(q, m),
    }.items():
        torch.testing.assert_close(parse({"name": name, "beta": 0.3})(student, teacher), exact)
