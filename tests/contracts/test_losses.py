"""Contract of every distillation loss in the registry."""

import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from ablate.core.values import digest, identity
from ablate.losses import LOSSES, parse
from ablate.study.training_recipes import Distill
from ablate.training.head import Head
from ablate.training.loss import Objective, fused_loss
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden

NAMES = [name for name in LOSSES if LOSSES[name].needs != "rows"]
"""Those of logits; of spans, each token is one here: tests/unit/training/test_other_tokenizers.py has the rest."""
SETTINGS = {
    "beta": st.floats(0.02, 0.98),
    "k": st.integers(1, 40),
    "gap": st.floats(0.02, 0.6),
    "common_weight": st.none() | st.floats(0.02, 1),
}

# B rows, T positions, M loss-bearing ones, D hidden width, V vocabulary of the tokenizer


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def skew(reference, p, q, most, gap):
    """-> KL(reference || m): m has of the reference the share that keeps (1 - share) gap, from 0.01 to `most`."""
    other = q if reference is p else p
    share = 1 - (1 - most) * gap / (reference * (reference - other)).sum(-1, keepdim=True).abs()
    share = share.detach().clamp(0.01, most)
    return kl(reference, share * reference + (1 - share) * other)


def events(p, q, k):
    """-> both on the k likeliest tokens of p and one event more, all the others."""
    order = p.argsort(-1, descending=True)
    p, q = p.gather(-1, order), q.gather(-1, order)
    if k >= p.shape[-1]:
        return p, q
    return tuple(torch.cat([x[..., :k], x[..., k:].sum(-1, keepdim=True)], -1) for x in (p, q))


def descending(p):
    return p.sort(-1, descending=True).values


# written from the papers, on probabilities
REFERENCES = {
    "forward_kl": lambda p, q, _: kl(p, q),
    "reverse_kl": lambda p, q, _: kl(q, p),
    "symmetric_kl": lambda p, q, loss: loss.beta * kl(p, q) + (1 - loss.beta) * kl(q, p),
    "jsd": lambda p, q, loss: (
        loss.beta * kl(p, loss.beta * p + (1 - loss.beta) * q)
        + (1 - loss.beta) * kl(q, loss.beta * p + (1 - loss.beta) * q)
    ),
    "skew_forward_kl": lambda p, q, loss: kl(p, loss.beta * p + (1 - loss.beta) * q),
    "skew_reverse_kl": lambda p, q, loss: kl(q, loss.beta * p + (1 - loss.beta) * q),
    "adaptive_skew_forward_kl": lambda p, q, loss: skew(p, p, q, loss.beta, loss.gap),
    "adaptive_skew_reverse_kl": lambda p, q, loss: skew(q, p, q, 1 - loss.beta, loss.gap),
    "top_k": lambda p, q, loss: kl(*events(p, q, loss.k)),
    "tvd": lambda p, q, _: 0.5 * (p - q).abs().sum(-1),
    "gold": lambda p, q, loss: kl(p, q) * (1 if loss.common_weight is None else loss.common_weight),
    "uld": lambda p, q, _: (descending(p) - descending(q)).abs().sum(-1),
}


def distance_to_a_kink(loss, p, q):
    """-> by how much log-probabilities may change before the gradient jumps; rounding must not decide its side."""
    if loss.name == "tvd":
        return (p / q).log().abs()
    if loss.name == "uld":
        ranks = (p.log().sort(-1).values, q.log().sort(-1).values)
        gaps = [rank.diff(dim=-1) for rank in ranks]  # where two tokens change places
        return torch.cat([(ranks[0] - ranks[1]).abs(), *gaps], -1)
    if loss.name == "top_k" and loss.k < p.shape[-1]:
        ranked = p.log().sort(-1, descending=True).values
        return ranked[..., loss.k - 1] - ranked[..., loss.k]
    return torch.tensor(math.inf, dtype=p.dtype)


@st.composite
def losses(draw, name):
    fields = [field for field in LOSSES[name].model_fields if field != "name"]
    return parse({"name": name} | {field: draw(SETTINGS[field]) for field in fields})


@dataclass
class Case:
    """Student and teacher, each with a head that has more rows than the tokenizer, and what is asked of them."""

    objective: Objective
    hidden: tuple
    heads: tuple
    labels: torch.Tensor
    mask: torch.Tensor

    @property
    def vocabulary(self):
        return self.heads[0].vocabulary

    def to(self, dtype):
        hidden = tuple(h.to(dtype) for h in self.hidden)
        heads = tuple(Head(h.weight.to(dtype), h.vocabulary, h.bias.to(dtype)) for h in self.heads)
        return Case(self.objective, hidden, heads, self.labels, self.mask)


@st.composite
def cases(draw, name):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    widths, padding = draw(st.tuples(*[st.integers(1, 6)] * 2)), draw(st.tuples(*[st.integers(0, 3)] * 2))
    vocabulary, spread = draw(st.integers(2, 30)), draw(st.floats(0.01, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    hidden = tuple(torch.randn(*shape, d, generator=generator, dtype=torch.float64) for d in widths)
    heads = []
    for d, extra in zip(widths, padding, strict=True):
        weight = torch.randn(vocabulary + extra, d, generator=generator, dtype=torch.float64) * spread / d**0.5
        weight[vocabulary:] = 1e3  # would win every softmax
        bias = torch.randn(vocabulary + extra, generator=generator, dtype=torch.float64) * spread
        heads.append(Head(weight, vocabulary, bias))
    labels = torch.randint(vocabulary, shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.7
    kd_ratio, temperature = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.5, 1.0, 3.0]))
    objective = Objective(kd_ratio, draw(losses(name)), temperature, draw(st.booleans()))
    return Case(objective, hidden, tuple(heads), labels, mask)


def dense(case):
    """-> (class loss, KD loss, gradient in the student's hidden states), and the largest |log p/q| that was summed.

    Every position is computed, then the mask comes.
    """
    objective, leaf = case.objective, case.hidden[0].clone().requires_grad_()
    logits = [
        (hidden @ head.weight.T + head.bias)[..., : case.vocabulary]
        for hidden, head in zip((leaf, case.hidden[1]), case.heads, strict=True)
    ]
    q, p = ((z / objective.temperature).softmax(-1) for z in logits)
    rounding = 1e-6 * (1 - torch.minimum(p, q).log().min())
    assume(bool((distance_to_a_kink(objective.kd, p, q) > rounding).all()))
    kd = (REFERENCES[objective.kd.name](p, q, objective.kd) * case.mask).sum()
    surprise = cross_entropy(logits[0].flatten(0, 1), case.labels.flatten(), reduction="none")
    class_loss = (surprise * case.mask.flatten()).sum()
    scale = objective.temperature**2 if objective.scale_by_t2 else 1
    total = (1 - objective.kd_ratio) * class_loss + objective.kd_ratio * scale * kd
    ratio = float((p / q).detach().log().abs().max())
    return (class_loss.detach(), kd.detach(), torch.autograd.grad(total, leaf)[0]), ratio


def ours(case):
    """-> the same from the fused loss over the gathered positions."""
    student, teacher = (hidden[case.mask] for hidden in case.hidden)
    outputs = TeacherHidden(teacher, case.heads[1])
    fused = fused_loss(case.objective, student, case.heads[0], case.labels[case.mask], outputs)
    grad = torch.zeros_like(case.hidden[0])
    grad[case.mask] = fused.grad_MD
    return fused.sums.class_loss, fused.sums.kd_loss, grad


def test_every_loss_has_a_reference_here():
    assert set(NAMES) == set(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_value_and_gradient_are_the_papers(name, data):
    case = data.draw(cases(name)).to(torch.float32)
    exact, ratio = dense(case.to(torch.float64))
    for mine, theirs in zip(ours(case.to(torch.float64)), exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    for mine, theirs in zip(ours(case), exact, strict=True):
        atol = 5e-6 * (1 + ratio) * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=atol)


def fused_logits(objective, student, teacher):
    """-> KD loss and gradient in logits, by the path of models that are not cut in two."""
    head, labels = Head(None, student.shape[1]), torch.zeros(len(student), dtype=torch.int64)
    fused = fused_loss(objective, student, head, labels, TeacherHidden(teacher, head))
    return fused.sums.kd_loss, fused.grad_MD


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_loss_and_its_gradient_are_zero_where_student_and_teacher_agree(name, data, dtype):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    same = (torch.randn(5, 17, generator=generator) * data.draw(st.floats(0.01, 50))).to(dtype)
    objective = Objective(1.0, data.draw(losses(name)), data.draw(st.floats(0.5, 4)))
    value, grad = fused_logits(objective, same, same.clone())
    assert abs(float(value)) < 5e-6
    assert float(grad.abs().max()) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_loss_is_above_zero_where_they_do_not(name, data):
    loss = data.draw(losses(name))
    student, teacher = torch.randn(2, 5, 41, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert bool((loss(student, teacher) > 0).all())


SUREST = torch.eye(4, 9).mul(1e4)
EXTREMES = torch.cat([SUREST, -SUREST, SUREST - 5e3, torch.linspace(-1e4, 1e4, 9)[None], torch.zeros(1, 9)])
"""Rows of logits that models do reach, and some that none does."""
NEVER = torch.full((2, 9), -1e30).index_fill_(1, torch.tensor([2]), 0.0).index_fill_(1, torch.tensor([8]), 1.0)
"""As good as minus infinity."""


def every_pair(rows):
    return rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_and_its_gradient_are_finite_in_bfloat16_whatever_the_logits(name, temperature):
    spec = {"name": name} | ({"k": 3} if name == "top_k" else {})
    objective = Objective(0.5, parse(spec), temperature)
    student, teacher = every_pair(torch.cat([EXTREMES, NEVER]).bfloat16())
    value, grad = fused_logits(objective, student, teacher)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())
    student, teacher = every_pair(torch.eye(len(EXTREMES)).bfloat16())
    head = Head(EXTREMES.T.bfloat16(), 9, is_bfloat16=True)
    fused = fused_loss(
        objective, student, head, torch.zeros(len(student), dtype=torch.int64), TeacherHidden(teacher, head)
    )
    assert bool(torch.stack(fused.sums[:3]).isfinite().all())
    assert bool(fused.grad_MD.isfinite().all())


def test_no_two_losses_or_settings_share_a_key():
    other = {"beta": [0.2, 0.3], "k": [1, 2], "gap": [0.2, 0.3], "common_weight": [0.2, 0.3]}
    fields = [(name, field) for name in NAMES for field in LOSSES[name].model_fields if field != "name"]
    spelt = NAMES + [{"name": name, field: value} for name, field in fields for value in other[field]]
    recipes = [Distill.model_validate({"loss": each}) for each in spelt]
    assert len({digest(identity(recipe)) for recipe in recipes}) == len(spelt)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(name, "beta", beta) for name in NAMES if "beta" in LOSSES[name].model_fields for beta in (0.0, 1.0, -0.1)]
    + [("adaptive_skew_forward_kl", "beta", 0.01), ("adaptive_skew_reverse_kl", "beta", 0.99)]
    + [("jsd", "beta", math.nan), ("top_k", "k", 0), ("top_k", "k", 2.5), ("adaptive_skew_forward_kl", "gap", 0.0)],
)
def test_a_setting_that_makes_no_loss_is_refused(name, field, value):
    with pytest.raises(ValueError, match=field):
        parse({"name": name, field: value})


P, Q = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()


@pytest.mark.parametrize(
    ("gap", "share"),
    [(0.1, 0.3), (0.3, 0.3), (0.33, 1 - 0.7 * 0.33 / 0.32), (0.44, 1 - 0.7 * 0.44 / 0.32), (0.46, 0.01), (0.9, 0.01)],
)
def test_the_less_two_models_differ_at_a_token_the_less_is_mixed_in(gap, share):
    """p (p - q), summed, is 0.9 0.4 - 0.1 0.4 = 0.32."""
    forward = parse({"name": "adaptive_skew_forward_kl", "beta": 0.3, "gap": gap})
    reverse = parse({"name": "adaptive_skew_reverse_kl", "beta": 0.7, "gap": gap})
    torch.testing.assert_close(forward(Q, P), parse({"name": "skew_forward_kl", "beta": share})(Q, P))
    torch.testing.assert_close(reverse(P, Q), parse({"name": "skew_reverse_kl", "beta": 1 - share})(P, Q))


def test_top_k_asks_nothing_of_how_the_rest_is_shared_out_but_all_of_how_much_it_is():
    teacher = torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04]]).log()
    loss = parse({"name": "top_k", "k": 3})
    torch.testing.assert_close(loss(torch.tensor([[0.4, 0.3, 0.2, 0.01, 0.09]]).log(), teacher), torch.zeros(1))
    less = torch.tensor([[0.36, 0.27, 0.18, 0.15, 0.04]]).log()
    exact = 0.9 * math.log(0.9 / 0.81) + 0.1 * math.log(0.1 / 0.19)
    torch.testing.assert_close(loss(less, teacher), torch.tensor([exact]))
    assert loss(less, teacher) < parse("forward_kl")(less, teacher)


NEW = """
from typing import Annotated, Literal
from ablate.losses.base import LOSSES, Loss
from ablate.core.values import IDENTITY

@LOSSES.register("half")
class Half(Loss):
    name: Annotated[Literal["half"], IDENTITY] = "half"
    def __call__(self, student_NV, teacher_NV):
        raise NotImplementedError
"""


def test_a_new_loss_is_one_file_more(tmp_path):
    (tmp_path / "half.py").write_text(NEW)
    script = (
        "import sys, ablate.losses; ablate.losses.__path__.append(sys.argv[1]);"
        "from ablate.study.schema import Distill;"
        "assert Distill.model_validate({'loss': 'half'}).loss.name == 'half'"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_trained_heads_gradient_is_rounded_once_however_many_chunks_there_are():
    torch.manual_seed(0)
    hidden_MD, labels_M = torch.randn(4096, 256).bfloat16(), torch.randint(512, (4096,))
    weight_VD = torch.nn.Parameter((torch.randn(512, 256) / 16).bfloat16())
    fused_loss(Objective(0.0, parse("forward_kl")), hidden_MD, Head(weight_VD, 512), labels_M, NoTeacher())
    exact_VD = weight_VD.detach().double().requires_grad_()
    cross_entropy(hidden_MD.double() @ exact_VD.T, labels_M, reduction="sum").backward()
    error = float((weight_VD.grad.double() - exact_VD.grad).norm() / exact_VD.grad.norm())
    once = float((exact_VD.grad.bfloat16().double() - exact_VD.grad).norm() / exact_VD.grad.norm())
    assert error < 1.1 * once  # three times as much where every chunk of 256 tokens is rounded
