"""The loss against each kind of what is known of a teacher: one number and one gradient, whatever the path."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from ablate.losses import parse
from ablate.training import loss_chunks
from ablate.training.head import Head
from ablate.training.loss import CLASS_LOSS, Objective, fused_loss
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeacherVectors

M, D, V = 23, 6, 11


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN, LABELS = randn(M, D, seed=0), torch.arange(M) * 7 % V
TEACHER = TeacherHidden(randn(M, D, seed=1), Head(randn(V + 2, D, seed=2), V))
HEADS = {
    "plain": Head(randn(V + 3, D, seed=3), V),
    "scaled": Head(randn(V + 3, D, seed=3), V, scale=0.3),
    "biased": Head(randn(V + 3, D, seed=3), V, bias=randn(V + 3, seed=4)),
    "capped": Head(randn(V + 3, D, seed=3), V, softcap=2.0),
    "trained": Head(torch.nn.Parameter(randn(V + 3, D, seed=3)), V),
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (5, 5))


def vectors(temperature: float, head: Head) -> TeacherVectors:
    p_MV = (TEACHER.head.logits(TEACHER.hidden_MD) / temperature).softmax(1)
    return TeacherVectors(p_MV @ head.weight[:V], torch.special.entr(p_MV).sum(1))


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_class_loss_alone_is_cross_entropy_under_every_sort_of_head(head):
    fused = fused_loss(CLASS_LOSS, HIDDEN, head, LABELS, NoTeacher())
    leaf_MD = HIDDEN.clone().requires_grad_()
    logits_MV = head.scale * (leaf_MD @ head.weight.detach()[:V].T + (0 if head.bias is None else head.bias[:V]))
    exact = cross_entropy(
        head.softcap * (logits_MV / head.softcap).tanh() if head.softcap else logits_MV, LABELS, reduction="sum"
    )
    torch.testing.assert_close(fused.sums.class_loss, exact.detach())
    torch.testing.assert_close(fused.grad_MD, torch.autograd.grad(exact, leaf_MD)[0])
    assert fused.sums.kd_loss == fused.sums.teacher_entropy == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kd_ratio", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["plain", "scaled"])
def test_vectors_stand_for_the_hidden_states_that_they_were_made_of(name, kd_ratio, temperature):
    head = HEADS[name]
    objective = Objective(kd_ratio, parse("forward_kl"), temperature, scale_by_t2=True)
    of_hidden, of_vectors = (
        fused_loss(objective, HIDDEN, head, LABELS, outputs) for outputs in (TEACHER, vectors(temperature, head))
    )
    torch.testing.assert_close(of_vectors.grad_MD, of_hidden.grad_MD)
    assert of_vectors.sums.cut is of_hidden.sums.cut is None
    torch.testing.assert_close(torch.stack(of_vectors.sums[:3]), torch.stack(of_hidden.sums[:3]))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_known_of_a_teacher_is_left_as_it_was(temperature):
    for outputs in (TEACHER, vectors(temperature, HEADS["plain"])):
        before = [tensor.clone() for tensor in outputs if isinstance(tensor, torch.Tensor)]
        fused_loss(Objective(0.4, parse("forward_kl"), temperature), HIDDEN, HEADS["plain"], LABELS, outputs)
        for tensor, kept in zip((x for x in outputs if isinstance(x, torch.Tensor)), before, strict=True):
            assert torch.equal(tensor, kept)
