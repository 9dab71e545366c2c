"""The fused loss: over gathered tokens, in chunks, its gradient formed on the way forward; no M x V tensor is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.losses import Loss, parse
from ablate.losses.forward_kl import ForwardKL
from ablate.study.schema import Distill
from ablate.training.model_parts import Head, expectation

# M loss-bearing tokens, C of them in one chunk, D hidden width, V vocabulary
# p the teacher's distribution, q the student's

CHUNK_ELEMENTS = 2**23
"""Logits at once: 32 MiB in float32; up to five such tensors live together."""
CHUNK_TOKENS = {"cpu": (64, 256), "cuda": (512, 8192)}
"""At least, so that the head's weights are not read for a few tokens only, and at most."""


@dataclass(frozen=True)
class Objective:
    """loss = (1 - kd_ratio) CE + kd_ratio KD(T) [T^2 if scale_by_t2], both sums over tokens."""

    kd_ratio: float
    kd: Loss
    temperature: float = 1.0
    scale_by_t2: bool = False

    @property
    def kd_weight(self) -> float:
        return self.kd_ratio * (self.temperature**2 if self.scale_by_t2 else 1.0)


CLASS_LOSS = Objective(0.0, parse("forward_kl"))
"""Fine-tuning: cross-entropy alone."""


def objective(recipe: Distill) -> Objective:
    """-> what a distillation minimises."""
    return Objective(recipe.kd_ratio, recipe.loss, recipe.temperature, recipe.scale_by_t2)


class Answers(NamedTuple):
    """What the teacher says of some tokens: hidden states, and the head that turns them into logits."""

    hidden_MD: Tensor
    head: Head


class Vectors(NamedTuple):
    """What is left of the teacher for forward KL at one temperature T and one frozen head W: c = softmax(z/T) W."""

    vector_MD: Tensor
    entropy_M: Tensor
    """Of softmax(z/T), in float64."""


class Sums(NamedTuple):
    """Summed over tokens in float64: the KL of a good student is a small difference of large numbers."""

    class_loss: Tensor
    kd_loss: Tensor
    """At the temperature used, without T^2."""
    teacher_entropy: Tensor
    """At the temperature used."""

    def __add__(self, other: object) -> "Sums":
        if not isinstance(other, Sums):
            return NotImplemented
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    @classmethod
    def zero(cls, device: str) -> "Sums":
        return cls(*torch.zeros(3, dtype=torch.float64, device=device))


class Scratch:
    """Memory of a CPU that is written over chunk after chunk: a fresh page costs more than the product that fills it.

    On a GPU there is none: its allocator keeps what is freed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, hidden_CD: Tensor, vocabulary: int) -> Tensor | None:
        """-> C x V in float32 or wider, whatever was written to it last; two names are two tensors."""
        if hidden_CD.is_cuda:
            return None
        size, dtype = len(hidden_CD) * vocabulary, torch.promote_types(hidden_CD.dtype, torch.float32)
        kept = self._kept.get(name)
        if kept is None or kept.dtype != dtype or kept.numel() < size:
            kept = self._kept[name] = torch.empty(size, dtype=dtype)
        return kept[:size].view(len(hidden_CD), vocabulary)


class Fused(NamedTuple):
    """The loss of some tokens, summed, and its gradient in their hidden states."""

    grad_MD: Tensor
    sums: Sums


@torch.no_grad()
def fused(
    objective: Objective,
    hidden_MD: Tensor,
    head: Head,
    labels_M: Tensor,
    answers: Answers | Vectors | None,
    scratch: Scratch | None = None,
) -> Fused:
    """-> sums over the tokens and the gradient of the summed loss; a trained head's gradient is added to its own."""
    scratch = scratch or Scratch()
    grad_MD = torch.empty_like(hidden_MD)
    sums = Sums.zero(str(hidden_MD.device))
    with head.summing():
        for chunk in chunks(hidden_MD, head.vocabulary):
            student_CV = head.logits(hidden_MD[chunk], scratch("student", hidden_MD[chunk], head.vocabulary))
            if answers is None or isinstance(answers, Vectors):
                kept = Vectors(answers.vector_MD[chunk], answers.entropy_M[chunk]) if answers else None
                by = _by_expectation if head.is_plain and objective.temperature == 1.0 else _by_logits
                grad_MD[chunk], chunk_sums = by(objective, student_CV, hidden_MD[chunk], head, labels_M[chunk], kept)
                sums += chunk_sums
                continue
            teacher_CV = _teacher_logits(answers, chunk, scratch)
            used_CV = student_CV if head.softcap is None else student_CV.clone()
            grad_CV, chunk_sums = _chunk(objective, used_CV, labels_M[chunk], teacher_CV)
            grad_MD[chunk] = head.back(grad_CV, hidden_MD[chunk], student_CV)
            sums += chunk_sums
    return Fused(grad_MD, sums)


def _teacher_logits(answers: Answers, chunk: slice, scratch: Scratch) -> Tensor:
    hidden_CD = answers.hidden_MD[chunk]
    return answers.head.logits(hidden_CD, scratch("teacher", hidden_CD, answers.head.vocabulary))


def chunks(hidden_MD: Tensor, vocabulary: int) -> Iterator[slice]:
    least, most = CHUNK_TOKENS["cuda" if hidden_MD.is_cuda else "cpu"]
    size = min(most, max(least, CHUNK_ELEMENTS // vocabulary))
    for begin in range(0, len(hidden_MD), size):
        yield slice(begin, begin + size)


def _chunk(objective: Objective, student_CV: Tensor, labels_C: Tensor, teacher_CV: Tensor) -> tuple[Tensor, Sums]:
    """-> gradient in the student's logits, which are used up; sums.

    CE: -log q[y], gradient q - onehot(y).
    """
    if isinstance(objective.kd, ForwardKL) and objective.temperature == 1.0:
        return _forward_kl(objective, student_CV, labels_C, teacher_CV)
    kd = _any_kd(objective, student_CV, teacher_CV)
    logq_CV = student_CV.log_softmax(1)
    class_C = _class_loss(logq_CV, labels_C)
    grad_CV = _add_class(logq_CV.exp_().mul_(1 - objective.kd_ratio), labels_C, 1 - objective.kd_ratio)
    if kd.grad_CV is not None:
        grad_CV += kd.grad_CV
    return grad_CV, _sums(class_C, kd.loss_C, kd.entropy_C)


def _forward_kl(objective: Objective, student_CV: Tensor, labels_C: Tensor, teacher_CV: Tensor) -> tuple[Tensor, Sums]:
    """KL(p || q) = sum_v p (log p - log q), gradient q - p; one softmax of the student serves it and CE.

    With weights r and 1 - r the whole gradient is q - (1 - r) onehot(y) - r p.
    """
    logq_CV, logp_CV = student_CV.log_softmax(1), teacher_CV.log_softmax(1)
    p_CV = logp_CV.exp()
    entropy_C = -_dot(p_CV, logp_CV)
    kd_C = _dot(p_CV, logp_CV.sub_(logq_CV))
    class_C = _class_loss(logq_CV, labels_C)
    grad_CV = logq_CV.exp_().sub_(p_CV, alpha=objective.kd_ratio)
    return _add_class(grad_CV, labels_C, 1 - objective.kd_ratio), _sums(class_C, kd_C, entropy_C)


def _by_expectation(
    objective: Objective, student_CV: Tensor, hidden_CD: Tensor, head: Head, labels_C: Tensor, kept: Vectors | None
) -> tuple[Tensor, Sums]:
    """-> gradient in the hidden states, sums; class loss alone, or with vectors at T = 1. The logits are used up.

    For a plain head, z = s W h: the gradient is s (sum_v q W - (1 - r) W[y] - r c), where q is never normalised, only
    its expectation. -sum_v p log q = lse(z) - s c h; KL is that less H(p), so it is summed in float64.
    """
    weight_VD = head.weight.detach()[: head.vocabulary]  # type: ignore[union-attr]
    ours = _exp_(student_CV, labels_C)
    grad_CD = expectation(student_CV, weight_VD).div_(ours.total_C1)
    grad_CD.sub_(weight_VD[labels_C], alpha=1 - objective.kd_ratio if kept else 1.0)
    if kept is None:
        return grad_CD.mul_(head.scale), _sums(ours.surprise_C)
    kd_C = ours.lse_C - head.scale * _dot(kept.vector_MD.double(), hidden_CD.double()) - kept.entropy_M
    grad_CD.sub_(kept.vector_MD, alpha=objective.kd_ratio)
    return grad_CD.mul_(head.scale), _sums(ours.surprise_C, kd_C, kept.entropy_M)


def _by_logits(
    objective: Objective, student_CV: Tensor, hidden_CD: Tensor, head: Head, labels_C: Tensor, kept: Vectors | None
) -> tuple[Tensor, Sums]:
    """The same at any temperature of the vectors, and class loss alone for any head.

    Gradient of -sum_v p log q(T) in h: s/T (W^T q(T) - c).
    """
    if kept is None:
        used_CV = student_CV if head.softcap is None else student_CV.clone()
        ours = _softmax_(used_CV, labels_C)
        return head.back(_add_class(used_CV, labels_C, 1.0), hidden_CD, student_CV), _sums(ours.surprise_C)
    ratio, temperature, weight = objective.kd_ratio, objective.temperature, objective.kd_weight
    scale = head.scale / temperature
    tempered_CV = student_CV / temperature
    lse_C = _softmax_(tempered_CV, labels_C).lse_C
    class_C = _softmax_(student_CV, labels_C).surprise_C
    kd_C = lse_C - scale * _dot(kept.vector_MD.double(), hidden_CD.double()) - kept.entropy_M
    grad_CV = student_CV.mul_(1 - ratio).add_(tempered_CV, alpha=weight / temperature)
    less_CD = kept.vector_MD * (weight * scale)
    grad_CD = head.back(_add_class(grad_CV, labels_C, 1 - ratio), hidden_CD, grad_CV, less_CD)
    return grad_CD, _sums(class_C, kd_C, kept.entropy_M)


class _Exp(NamedTuple):
    total_C1: Tensor
    lse_C: Tensor
    """In float64."""
    surprise_C: Tensor
    """-log q[y]."""


def _exp_(logits_CV: Tensor, labels_C: Tensor) -> _Exp:
    """Turns logits into exp(z - max z) in place; three times as fast as torch's logsumexp and softmax on a CPU."""
    highest_C1 = logits_CV.amax(1, keepdim=True)
    label_C = logits_CV.sub_(highest_C1).gather(1, labels_C[:, None]).squeeze(1)
    total_C1 = logits_CV.exp_().sum(1, keepdim=True)
    log_total_C = total_C1.log().squeeze(1)
    return _Exp(total_C1, highest_C1.squeeze(1).double() + log_total_C.double(), log_total_C - label_C)


def _softmax_(logits_CV: Tensor, labels_C: Tensor) -> _Exp:
    """Turns logits into their softmax in place."""
    found = _exp_(logits_CV, labels_C)
    logits_CV.div_(found.total_C1)
    return found


class _Kd(NamedTuple):
    loss_C: Tensor
    entropy_C: Tensor
    grad_CV: Tensor | None


def _any_kd(objective: Objective, student_CV: Tensor, teacher_CV: Tensor) -> _Kd:
    """Any divergence at any temperature, differentiated by torch."""
    teacher_CV = teacher_CV / objective.temperature
    leaf_CV, grad_CV = student_CV.detach(), None
    with torch.set_grad_enabled(objective.kd_weight > 0):
        leaf_CV.requires_grad_(objective.kd_weight > 0)
        kd_C = objective.kd(leaf_CV / objective.temperature, teacher_CV)
        if objective.kd_weight:
            (grad_CV,) = torch.autograd.grad(kd_C.sum() * objective.kd_weight, leaf_CV)
    logp_CV = teacher_CV.log_softmax(1)
    return _Kd(kd_C.detach(), -_dot(logp_CV.exp(), logp_CV), grad_CV)


def _class_loss(logq_CV: Tensor, labels_C: Tensor) -> Tensor:
    return -logq_CV.gather(1, labels_C[:, None]).squeeze(1)


def _add_class(grad_CV: Tensor, labels_C: Tensor, weight: float) -> Tensor:
    """Subtracts weight onehot(y) in place."""
    grad_CV[torch.arange(len(labels_C), device=labels_C.device), labels_C] -= weight
    return grad_CV


def _dot(a_CV: Tensor, b_CV: Tensor) -> Tensor:
    dot_C: Tensor = torch.linalg.vecdot(a_CV, b_CV)
    return dot_C


def _sums(class_C: Tensor, kd_C: Tensor | None = None, entropy_C: Tensor | None = None) -> Sums:
    nothing = class_C.new_zeros(())
    parts = (class_C, nothing if kd_C is None else kd_C, nothing if entropy_C is None else entropy_C)
    return Sums(*(part.sum(dtype=torch.float64) for part in parts))
