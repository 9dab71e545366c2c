"""The loss of a chunk from the logits of both models, its gradient in the memory of the student's.

It works on a block of a chunk's rows at a time: what it makes beside the logits is as large as a few blocks.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.losses.base import Distributions
from ablate.training.loss import LossSums, Objective
from ablate.training.loss_chunks import block_rows

# C tokens of a chunk, N of a block of it, V vocabulary
# z logits, p the teacher's distribution, q the student's, y the label, r kd_ratio, T temperature, w KD's weight


class LogitsLoss(NamedTuple):
    """The loss of a chunk, before the head's way back."""

    grad_CV: Tensor
    sums: LossSums


class Divergence(NamedTuple):
    """Of some tokens, or spans of them, the KD loss."""

    loss_C: Tensor
    entropy_C: Tensor
    grad_CV: Tensor | None
    """Weighted; None where the weight is 0."""


def blocks(logits_CV: Tensor) -> Iterator[slice]:
    """-> rows of a chunk that are worked on together."""
    size = block_rows(logits_CV.shape[1], logits_CV.device.type, logits_CV.element_size())
    for begin in range(0, len(logits_CV), size):
        yield slice(begin, begin + size)


def logits_loss(objective: Objective, student_CV: Tensor, labels_C: Tensor, teacher_CV: Tensor) -> LogitsLoss:
    """Any divergence at any temperature, and the class loss beside it: (1 - r) (q - onehot(y)) in the logits.

    `teacher_CV`: z/T. Both models' logits are used up; the gradient is in the student's memory.
    """
    of_block = _block_at_1 if objective.temperature == 1.0 else _block_at_any
    parts = [of_block(objective, student_CV[n], labels_C[n], teacher_CV[n]) for n in blocks(student_CV)]
    return LogitsLoss(student_CV, LossSums.over(*map(torch.cat, zip(*parts, strict=True))))


def several_logits_losses(
    objective: Objective, student_CV: Tensor, labels_C: Tensor, teachers: Iterable[tuple[float, Tensor]]
) -> LogitsLoss:
    """The same with the weighted sum of several divergences.

    `teachers`: weights and z/T, looked at one by one, each used up.
    """
    grad_CV = torch.zeros_like(student_CV)
    sums_2C = student_CV.new_zeros(2, len(student_CV))
    for weight, teacher_CV in teachers:
        for n in blocks(student_CV):
            tempered_NV = student_CV[n].clone().div_(objective.temperature)
            both = _compared(objective, tempered_NV, labels_C[n], teacher_CV[n])
            add_(grad_CV[n], both.grad_NV, weight * objective.kd_weight / objective.temperature)
            sums_2C[:, n] += weight * torch.stack((both.loss_N, both.entropy_N))
    return with_class_loss(objective, student_CV, labels_C, Divergence(sums_2C[0], sums_2C[1], grad_CV))


def with_class_loss(objective: Objective, student_CV: Tensor, labels_C: Tensor, kd: Divergence) -> LogitsLoss:
    """-> KD, differentiated, and the class loss beside it, (1 - r) (q - onehot(y)) in the logits, which are used up."""
    class_C = torch.cat([_class_grad_(objective, student_CV[n], labels_C[n]) for n in blocks(student_CV)])
    if kd.grad_CV is not None:
        student_CV += kd.grad_CV
    return LogitsLoss(student_CV, LossSums.over(class_C, kd.loss_C, kd.entropy_C))


class _Losses(NamedTuple):
    """Of the tokens of a block."""

    class_N: Tensor
    kd_N: Tensor
    entropy_N: Tensor


def _block_at_1(objective: Objective, student_NV: Tensor, labels_N: Tensor, teacher_NV: Tensor) -> _Losses:
    """One softmax of the student serves KD and the class loss."""
    both = _compared(objective, student_NV, labels_N, teacher_NV)
    grad_NV = add_(both.q_NV.mul_(1 - objective.kd_ratio), both.grad_NV, objective.kd_weight, student_NV)
    subtract_labels_(grad_NV, labels_N, 1 - objective.kd_ratio)
    return _Losses(both.surprise_N, both.loss_N, both.entropy_N)


def _block_at_any(objective: Objective, student_NV: Tensor, labels_N: Tensor, teacher_NV: Tensor) -> _Losses:
    both = _compared(objective, student_NV / objective.temperature, labels_N, teacher_NV)
    class_N = _class_grad_(objective, student_NV, labels_N)
    add_(student_NV, both.grad_NV, objective.kd_weight / objective.temperature)
    return _Losses(class_N, both.loss_N, both.entropy_N)


class _Compared(NamedTuple):
    """Both models at the tokens of a block, at the temperature."""

    loss_N: Tensor
    entropy_N: Tensor
    """The teacher's."""
    grad_NV: Tensor
    """Of the divergence in the student's logits z/T."""
    q_NV: Tensor
    surprise_N: Tensor
    """-log q[y]."""


def _compared(objective: Objective, student_NV: Tensor, labels_N: Tensor, teacher_NV: Tensor) -> _Compared:
    """`student_NV`, `teacher_NV`: z/T, both used up."""
    graded = None if objective.kd.is_graded else _differentiated(objective, student_NV, teacher_NV)
    both = Distributions(*log_softmax_(student_NV), *log_softmax_(teacher_NV))
    surprise_N = -both.logq_NV.gather(1, labels_N[:, None]).squeeze(1)
    entropy_N = -(both.p_NV * both.logp_NV).sum(1)
    loss_N, grad_NV = graded or objective.kd.graded(both)
    return _Compared(loss_N, entropy_N, grad_NV, both.q_NV, surprise_N)


def _differentiated(objective: Objective, student_NV: Tensor, teacher_NV: Tensor) -> tuple[Tensor, Tensor]:
    """-> the divergence and its gradient in the student's logits z/T, found by torch."""
    if not objective.kd_weight:
        return objective.kd(student_NV, teacher_NV), torch.zeros_like(student_NV)
    with torch.enable_grad():
        leaf_NV = student_NV.detach().requires_grad_()
        loss_N = objective.kd(leaf_NV, teacher_NV)
        (grad_NV,) = torch.autograd.grad(loss_N.sum(), leaf_NV)
    return loss_N.detach(), grad_NV


def log_softmax_(z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Turns logits into log-probabilities in place. -> them, and the probabilities."""
    z_NV.sub_(z_NV.amax(1, keepdim=True))
    p_NV = z_NV.exp()
    total_N1 = p_NV.sum(1, keepdim=True)
    return z_NV.sub_(total_N1.log()), p_NV.div_(total_N1)


def _class_grad_(objective: Objective, student_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Turns logits into (1 - r) (q - onehot(y)) in place. -> -log q[y]."""
    surprise_N = softmax_(student_NV, labels_N).surprise_C
    subtract_labels_(student_NV.mul_(1 - objective.kd_ratio), labels_N, 1 - objective.kd_ratio)
    return surprise_N


def add_(total_NV: Tensor, grad_NV: Tensor, weight: float, out_NV: Tensor | None = None) -> Tensor:
    """-> total + weight grad, in the memory of `out_NV` or the total's; a gradient of weight 0 may be infinite."""
    if not weight:
        return total_NV if out_NV is None else out_NV.copy_(total_NV)
    return torch.add(total_NV, grad_NV, alpha=weight, out=total_NV if out_NV is None else out_NV)


class Exponentials(NamedTuple):
    total_C1: Tensor
    """Of exp(z - max z)."""
    lse_C: Tensor
    """Log of the sum of exp z, in float64."""
    surprise_C: Tensor
    """-log q[y]."""


def exp_(logits_CV: Tensor, labels_C: Tensor) -> Exponentials:
    """Turns logits into exp(z - max z) in place; three times as fast as torch's logsumexp and softmax on a CPU."""
    parts = [_exp_block_(logits_CV[n], labels_C[n]) for n in blocks(logits_CV)]
    return Exponentials(*map(torch.cat, zip(*parts, strict=True)))


def _exp_block_(logits_NV: Tensor, labels_N: Tensor) -> Exponentials:
    highest_N1 = logits_NV.amax(1, keepdim=True)
    label_N = logits_NV.sub_(highest_N1).gather(1, labels_N[:, None]).squeeze(1)
    total_N1 = logits_NV.exp_().sum(1, keepdim=True)
    log_total_N = total_N1.log().squeeze(1)
    return Exponentials(total_N1, highest_N1.squeeze(1).double() + log_total_N.double(), log_total_N - label_N)


def softmax_(logits_CV: Tensor, labels_C: Tensor) -> Exponentials:
    """Turns logits into their softmax in place."""
    exponentials = exp_(logits_CV, labels_C)
    logits_CV.div_(exponentials.total_C1)
    return exponentials


def subtract_labels_(grad_CV: Tensor, labels_C: Tensor, weight: float) -> Tensor:
    """Subtracts weight onehot(y) in place."""
    grad_CV[torch.arange(len(labels_C), device=labels_C.device), labels_C] -= weight
    return grad_CV
