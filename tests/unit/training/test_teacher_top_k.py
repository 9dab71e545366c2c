"""A teacher cut to its likeliest tokens, against sums written out in float64."""

import math
from dataclasses import replace

import pytest
import torch
from support import reference
from support import tiny_models as tiny

from ablate.losses import LOSSES, parse
from ablate.study.training_recipes import Distill
from ablate.training import loss_chunks
from ablate.training.batches import StepRows
from ablate.training.head import Head
from ablate.training.loss import Objective, Scratch, TopKForm, fused_loss, objective, own_objective
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden
from ablate.training.teacher_top_k import COSTS, CutHidden, cut_costs, cut_logits, cut_outputs, divergence, kept_dtype

M, D, V = 11, 7, 13
DIVERGENCES = [name for name in LOSSES if name != "top_k" and not LOSSES[name].crosses_tokenizers]
ZEROS = [name for name in DIVERGENCES if LOSSES[name].takes_zeros]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


HIDDEN, LABELS = randn(M, D), torch.randint(V, (M,), generator=torch.Generator().manual_seed(3))
HEAD, TEACHER = Head(randn(V + 2, D, seed=1), V), TeacherHidden(randn(M, D, seed=4), Head(randn(V, D, seed=5), V))


def dense(goal: Objective, hidden_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-> sums of class loss and KD loss, one token and one event after the other."""
    form, total, ce = goal.top_k, hidden_MD.new_zeros(()), hidden_MD.new_zeros(())
    for m in range(M):
        z = hidden_MD[m] @ HEAD.weight[:V].T
        p = (TEACHER.hidden_MD[m] @ TEACHER.head.weight.T / goal.temperature).softmax(0)
        q = (z / goal.temperature).softmax(0)
        kept = sorted(range(V), key=lambda v: -float(p[v]))[: form.k]
        others = [v for v in range(V) if v not in kept]
        if form.has_rest:
            pairs = [(p[v], q[v]) for v in kept] + ([(p[others].sum(), q[others].sum())] if others else [])
        else:  # over all of V, one by one
            whole = p[kept].sum()
            pairs = [(p[v] / whole, q[v]) for v in kept] + [(p.new_tensor(1e-300), q[v]) for v in others]
        p_events, q_events = (torch.stack(part) for part in zip(*pairs, strict=True))
        total = total + goal.kd(q_events.log()[None], p_events.log()[None])[0]
        ce = ce - z.log_softmax(0)[LABELS[m]]
    return ce, total


def check(goal: Objective, tolerance=1e-9):
    leaf = HIDDEN.clone().requires_grad_(True)
    ce, kd = dense(goal, leaf)
    ((1 - goal.kd_ratio) * ce + goal.kd_weight * kd).backward()
    fused = fused_loss(goal, HIDDEN, HEAD, LABELS, cut_outputs(goal, TEACHER))
    assert float(fused.sums.class_loss) == pytest.approx(float(ce.detach()), rel=tolerance)
    assert float(fused.sums.kd_loss) == pytest.approx(float(kd.detach()), rel=tolerance, abs=tolerance)
    assert (fused.grad_MD - leaf.grad).abs().max() < tolerance * leaf.grad.abs().max()


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize(("temperature", "kd_ratio"), [(1.0, 0.5), (2.0, 0.3), (1.0, 1.0), (0.5, 0.0)])
def test_with_the_rest_as_one_event_value_and_gradient_are_those_of_k_plus_1_events(name, temperature, kd_ratio):
    for k in (1, 4, V):
        check(Objective(kd_ratio, parse(name), temperature, True, TopKForm(k, True)), 1e-6)  # rest is float32


@pytest.mark.parametrize("name", ZEROS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_without_a_rest_they_are_those_of_the_scaled_teacher_and_the_student_over_all_tokens(name, temperature):
    for k in (1, 4, V):
        check(Objective(0.5, parse(name), temperature, False, TopKForm(k, False)), 1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_every_token_kept_the_loss_is_the_exact_one(name, dtype):
    hidden, head = HIDDEN.to(dtype), Head(HEAD.weight.to(dtype), V)
    teacher = TeacherHidden(TEACHER.hidden_MD.to(dtype), Head(TEACHER.head.weight.to(dtype), V))
    for has_rest in (True, False) if LOSSES[name].takes_zeros else (True,):
        whole = Objective(0.5, parse(name), 2.0)
        cut = Objective(0.5, parse(name), 2.0, False, TopKForm(10 * V, has_rest))
        exact, kept = (fused_loss(goal, hidden, head, LABELS, cut_outputs(goal, teacher)) for goal in (whole, cut))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-9
        assert float(kept.sums.kd_loss) == pytest.approx(float(exact.sums.kd_loss), rel=tolerance)
        assert (kept.grad_MD - exact.grad_MD).abs().max() < tolerance * exact.grad_MD.abs().max()
        assert kept.sums.cut.abs().max() < 1e-4


def test_with_a_rest_forward_kl_is_the_loss_top_k_and_least_where_the_models_agree():
    cut = Objective(1.0, parse("forward_kl"), 1.0, False, TopKForm(4, True))
    loss = Objective(1.0, parse({"name": "top_k", "k": 4}))
    one, other = (fused_loss(goal, HIDDEN, HEAD, LABELS, cut_outputs(goal, TEACHER)) for goal in (cut, loss))
    assert float(one.sums.kd_loss) == pytest.approx(float(other.sums.kd_loss), rel=1e-6)
    same = fused_loss(cut, TEACHER.hidden_MD, TEACHER.head, LABELS, cut_outputs(cut, TEACHER))
    assert abs(float(same.sums.kd_loss)) < 1e-6
    assert same.grad_MD.abs().max() < 1e-6


@pytest.mark.parametrize("has_rest", [True, False])
def test_what_a_cut_costs_is_told_as_it_is(has_rest):
    """Mass, entropies and KL, summed token by token."""
    form = TopKForm(3, has_rest)
    goal = Objective(0.5, parse("forward_kl"), 1.0, False, form)
    sums = fused_loss(goal, HIDDEN, HEAD, LABELS, cut_outputs(goal, TEACHER)).sums
    mass = lost = error = entropy = 0.0
    for p in (TEACHER.hidden_MD @ TEACHER.head.weight.T).softmax(1):
        top = p.sort(descending=True).values
        kept, rest = top[:3], float(top[3:].sum())
        left = torch.cat((kept, top[3:].sum()[None])) if has_rest else kept / kept.sum()
        entropy += float(torch.special.entr(left).sum())
        lost += float(torch.special.entr(p).sum() - torch.special.entr(left).sum())
        spread = torch.cat((kept, torch.full((V - 3,), rest / (V - 3), dtype=p.dtype)))
        error += float((top * (top / spread).log()).sum()) if has_rest else -math.log(1 - rest)
        mass += rest
    assert cut_costs(sums.cut, M) == pytest.approx(dict(zip(COSTS, [mass / M, lost / M, error / M], strict=True)), 1e-5)
    assert float(sums.teacher_entropy) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_kept_gives_bit_for_bit_what_the_teacher_beside_gives(dtype):
    hidden, head = HIDDEN.to(dtype), Head(HEAD.weight.to(dtype), V)
    teacher = TeacherHidden(TEACHER.hidden_MD.to(dtype), Head(TEACHER.head.weight.to(dtype), V))
    for has_rest in (True, False):
        goal = Objective(0.5, parse("jsd"), 2.0, False, TopKForm(4, has_rest))
        kept = cut_logits(teacher.head.logits(teacher.hidden_MD), 4, 2.0, kept_dtype(dtype))
        assert kept.logp_Mk.dtype == (torch.float16 if dtype == torch.bfloat16 else torch.float32)
        assert kept.ids_Mk.dtype == torch.int32
        live, read = (fused_loss(goal, hidden, head, LABELS, one) for one in (CutHidden(*teacher), kept))
        assert torch.equal(live.grad_MD, read.grad_MD)
        assert all(torch.equal(one, other) for one, other in zip(live.sums, read.sums, strict=True))


@pytest.mark.parametrize("form", [TopKForm(4, True), TopKForm(4, False), TopKForm(V, True), None])
def test_held_out_rows_are_held_against_what_is_minimised(form):
    goal = Objective(1.0, parse("jsd"), 2.0, False, form)
    student, teacher = HEAD.logits(HIDDEN) / 2, TEACHER.head.logits(TEACHER.hidden_MD) / 2
    fused = fused_loss(goal, HIDDEN, HEAD, LABELS, cut_outputs(goal, TEACHER))
    kd = divergence(goal, student, teacher, torch.float64)
    assert float(kd.sum()) == pytest.approx(float(fused.sums.kd_loss), rel=1e-6)


def test_what_cannot_be_cut_is_not_taken_for_the_whole():
    goal = Objective(1.0, parse("jsd"), 1.0, False, TopKForm(4, True))
    with pytest.raises(TypeError, match="no NoTeacher can be cut"):
        cut_outputs(goal, NoTeacher())


def test_chunks_of_tokens_change_nothing(monkeypatch):
    goal = Objective(0.5, parse("reverse_kl"), 1.0, False, TopKForm(4, True))
    whole = fused_loss(goal, HIDDEN, HEAD, LABELS, CutHidden(*TEACHER), Scratch())
    monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (3, 3))
    parts = fused_loss(goal, HIDDEN, HEAD, LABELS, CutHidden(*TEACHER), Scratch())
    assert (whole.grad_MD - parts.grad_MD).abs().max() < 1e-9
    assert torch.allclose(whole.sums.cut, parts.sums.cut, rtol=1e-6)


def test_a_student_far_from_its_teacher_has_a_finite_loss():
    """Logits a thousand apart: probabilities that are 0 in float32 on either side."""
    head, teacher = Head(torch.eye(V), V), Head(torch.eye(V), V)
    hidden = torch.zeros(2, V)
    hidden[:, 0] = 1000.0
    asked = torch.zeros(2, V)
    asked[:, 5] = 1000.0
    for name in ("forward_kl", "reverse_kl", "jsd", "tvd"):
        for has_rest in (True, False) if LOSSES[name].takes_zeros else (True,):
            goal = Objective(1.0, parse(name), 1.0, False, TopKForm(3, has_rest))
            fused = fused_loss(goal, hidden, head, LABELS[:2], CutHidden(asked, teacher))
            assert fused.grad_MD.isfinite().all(), name
            assert all(part.isfinite().all() for part in fused.sums), name


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"loss": "top_k"}, "the loss top_k keeps 64 tokens by itself: leave teacher_top_k out"),
        ({"loss": "reverse_kl", "teacher_top_k_rest": "zero"}, "of which reverse_kl makes nothing finite: say teach"),
        (
            {"student_fraction": 0.5, "student_loss": "symmetric_kl", "teacher_top_k_rest": "zero"},
            "symmetric_kl makes nothing finite",
        ),
        (
            {"answers": "student", "objective": "policy_gradient", "loss": "reverse_kl"},
            "policy_gradient asks the teacher of each sampled token",
        ),
    ],
)
def test_a_cut_that_cannot_be_learnt_from_is_refused_with_what_to_do(settings, why):
    with pytest.raises(ValueError, match=why):
        Distill(teacher_top_k=8, **settings)


def test_what_becomes_of_the_rest_is_nothing_to_a_teacher_that_is_whole():
    assert Distill(teacher_top_k_rest="zero") == Distill()
    assert Distill(teacher_top_k="none", teacher_top_k_rest="zero") == Distill()
    assert objective(Distill(teacher_top_k=3, teacher_top_k_rest="zero")).top_k == TopKForm(3, False)
    assert objective(Distill()).top_k is None


def test_answers_that_the_student_writes_are_learnt_from_a_cut_teacher_too():
    """As rows of data are, KD alone; what the cut costs is recorded of both, of the whole what is told of answers."""
    rows = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
    recipe = Distill(student_fraction=0.5, teacher_top_k=4, loss="reverse_kl", kd_ratio=0.5)
    training = reference.training_of("llama", objective(recipe), rows)
    own = replace(training, own_objective=own_objective(recipe))
    given = replace(training, objective=own_objective(recipe))
    indices = (0, 1, 3, 4)
    grads, sums = [], []
    for one, wrote in ((own, frozenset(indices)), (given, frozenset())):
        one.trainable.discard_grads()
        sums.append(accumulate(one, StepRows(1, rows, indices, wrote), 100, "cpu"))
        grads.append([weight.grad for weight in one.trainable.weights.values()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert torch.equal(sums[0].data.cut, sums[1].data.cut)
    assert sums[0].own.kd_loss == pytest.approx(float(sums[1].data.kd_loss))
    assert sums[0].own.reverse_kl > sums[0].own.kd_loss  # of all tokens there is more to tell apart
    assert COSTS[0] in mean_losses(own, sums[0], sums[0].own.num_tokens)
