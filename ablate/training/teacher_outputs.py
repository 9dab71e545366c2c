"""What is known of a teacher about some tokens: nothing, its hidden states, or vectors; and the loss against each."""

import math
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ablate.losses.forward_kl import ForwardKL
from ablate.training.head import Head, expectation
from ablate.training.loss import ChunkLoss, LossSums, Objective, Scratch, StudentChunk
from ablate.training.own_tokens import OwnTokens

# M loss-bearing tokens, C of them in one chunk, D hidden width, V vocabulary
# z logits, p the teacher's distribution, q the student's, y the label, r kd_ratio, T temperature, H entropy


TeacherMean: TypeAlias = Literal["probabilities", "losses"]
"""What several teachers' mean is taken of."""


class NoTeacher:
    """Class loss alone: CE = -log q[y], gradient in the logits q - onehot(y)."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        if student.head.is_plain:
            exponentials, grad_CD = _by_expectation(student, 1.0)
            return ChunkLoss(grad_CD.mul_(student.head.scale), LossSums.over(exponentials.surprise_C))
        q_CV = student.logits_to_overwrite()
        surprise_C = softmax_(q_CV, student.labels_C).surprise_C
        return ChunkLoss(student.backward(subtract_labels_(q_CV, student.labels_C, 1.0)), LossSums.over(surprise_C))


class TeacherHidden(NamedTuple):
    """Hidden states, and the head that turns them into logits, of which every divergence can be made."""

    hidden_MD: Tensor
    head: Head
    own: OwnTokens | None = None
    """Where the student wrote these tokens: what is recorded of them."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        teacher_CV = self.logits(student.tokens, scratch)
        if self.own:
            self.own.add(student.tokens, student.logits_CV, teacher_CV, student.labels_C)
        logits_CV, labels_C = student.logits_to_overwrite(), student.labels_C
        if isinstance(objective.kd, ForwardKL) and objective.temperature == 1.0:
            grad_CV, sums = _forward_kl(objective, logits_CV, labels_C, teacher_CV)
        else:
            tempered = [(1.0, teacher_CV / objective.temperature)]
            grad_CV, sums = _any_divergence(objective, logits_CV, labels_C, tempered)
        return ChunkLoss(student.backward(grad_CV), sums)

    def logits(self, tokens: slice, scratch: Scratch) -> Tensor:
        """-> C x V."""
        hidden_CD = self.hidden_MD[tokens]
        return self.head.logits(hidden_CD, scratch("teacher", hidden_CD, self.head.vocabulary))

    def weighted(self, tokens: slice, temperature: float, scratch: Scratch) -> Iterable[tuple[float, Tensor]]:
        """-> weights and z/T (C x V) of those whose divergences are summed."""
        yield 1.0, self.logits(tokens, scratch).div_(temperature)


class TeachersHidden(NamedTuple):
    """Hidden states of several teachers i with weights w, which sum to 1; every head's are over one vocabulary.

    `probabilities`: one teacher, p = sum_i w_i softmax(z_i/T), as an ensemble averages (Hinton et al. 2015, 1503.02531,
    section 5, weighs it evenly). `losses`: KD = sum_i w_i KD_i. For forward KL the two have one gradient, and
    sum_i w_i KL(p_i || q) = KL(p || q) + sum_i w_i KL(p_i || p).
    """

    teachers: tuple[TeacherHidden, ...]
    weights: tuple[float, ...]
    mean: TeacherMean
    own: OwnTokens | None = None
    """Of a student that wrote the tokens: what is recorded of them."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        if self.own:
            self.own.add(student.tokens, student.logits_CV, self.logits(student.tokens, scratch), student.labels_C)
        logits_CV = student.logits_to_overwrite()
        teachers = self.weighted(student.tokens, objective.temperature, scratch)
        grad_CV, sums = _any_divergence(objective, logits_CV, student.labels_C, teachers)
        return ChunkLoss(student.backward(grad_CV), sums)

    def logits(self, tokens: slice, scratch: Scratch) -> Tensor:
        """-> C x V: log p at temperature 1, the mean of probabilities whichever mean is trained on."""
        return self._mean(self._tempered(tokens, 1.0, scratch))

    def weighted(self, tokens: slice, temperature: float, scratch: Scratch) -> Iterable[tuple[float, Tensor]]:
        """-> weights and z/T (C x V) of those whose divergences are summed: each to be used before the next is."""
        tempered = self._tempered(tokens, temperature, scratch)
        return zip(self.weights, tempered, strict=True) if self.mean == "losses" else [(1.0, self._mean(tempered))]

    def _tempered(self, tokens: slice, temperature: float, scratch: Scratch) -> Iterator[Tensor]:
        """-> z_i/T of one teacher after the other, in the memory of the one before."""
        for teacher in self.teachers:
            yield teacher.logits(tokens, scratch).div_(temperature)

    def _mean(self, tempered: Iterable[Tensor]) -> Tensor:
        """-> log sum_i w_i p_i, never of a probability that has rounded to 0."""
        terms = (z_CV.log_softmax(1) + math.log(w) for w, z_CV in zip(self.weights, tempered, strict=True))
        return reduce(lambda total_CV, term_CV: torch.logaddexp(total_CV, term_CV, out=total_CV), terms)


class TeacherVectors(NamedTuple):
    """What is left of the teacher for forward KL at one temperature T and one frozen head W: c = softmax(z/T) W.

    For a plain head, where the student's z = s W h: KL(p || q) = lse(z/T) - s/T c h - H(p), summed in float64, since
    it is a small difference of large numbers.
    """

    vector_MD: Tensor
    entropy_M: Tensor
    """Of softmax(z/T), in float64."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        vectors = TeacherVectors(self.vector_MD[student.tokens], self.entropy_M[student.tokens])
        return (_vectors_at_1 if objective.temperature == 1.0 else _vectors_at_any)(objective, student, *vectors)


# of logits: -> gradient in the student's logits, which are used up; sums


class LogitsLoss(NamedTuple):
    """The loss of a chunk, before the head's way back."""

    grad_CV: Tensor
    sums: LossSums


def _forward_kl(objective: Objective, student_CV: Tensor, labels_C: Tensor, teacher_CV: Tensor) -> LogitsLoss:
    """KL(p || q) = sum_v p (log p - log q), gradient q - p; one softmax of the student serves it and CE.

    With weights r and 1 - r the whole gradient is q - r p - (1 - r) onehot(y).
    """
    logq_CV, logp_CV = student_CV.log_softmax(1), teacher_CV.log_softmax(1)
    p_CV = logp_CV.exp()
    entropy_C = -_dot(p_CV, logp_CV)
    kd_C = _dot(p_CV, logp_CV.sub_(logq_CV))
    class_C = _class_loss(logq_CV, labels_C)
    grad_CV = logq_CV.exp_().sub_(p_CV, alpha=objective.kd_ratio)
    grad_CV = subtract_labels_(grad_CV, labels_C, 1 - objective.kd_ratio)
    return LogitsLoss(grad_CV, LossSums.over(class_C, kd_C, entropy_C))


def _any_divergence(
    objective: Objective, student_CV: Tensor, labels_C: Tensor, teachers: Iterable[tuple[float, Tensor]]
) -> "LogitsLoss":
    """Any divergence at any temperature, differentiated by torch; to it (1 - r) (q - onehot(y)) is added.

    `teachers`: weights and z/T of those whose divergences are summed, looked at one by one.
    """
    divergences = (_differentiated(objective, student_CV, *teacher) for teacher in teachers)
    return with_class_loss(objective, student_CV, labels_C, reduce(Divergence.plus, divergences))


def with_class_loss(objective: Objective, student_CV: Tensor, labels_C: Tensor, kd: "Divergence") -> "LogitsLoss":
    """-> KD, differentiated, and the class loss beside it, (1 - r) (q - onehot(y)) in the logits, which are used up."""
    logq_CV = student_CV.log_softmax(1)
    class_C = _class_loss(logq_CV, labels_C)
    grad_CV = logq_CV.exp_().mul_(1 - objective.kd_ratio)
    grad_CV = subtract_labels_(grad_CV, labels_C, 1 - objective.kd_ratio)
    if kd.grad_CV is not None:
        grad_CV += kd.grad_CV
    return LogitsLoss(grad_CV, LossSums.over(class_C, kd.loss_C, kd.entropy_C))


class Divergence(NamedTuple):
    """Of some tokens, or spans of them, the KD loss."""

    loss_C: Tensor
    entropy_C: Tensor
    grad_CV: Tensor | None
    """Weighted; None where the weight is 0."""

    def plus(self, other: "Divergence") -> "Divergence":
        grad_CV = None if self.grad_CV is None or other.grad_CV is None else self.grad_CV.add_(other.grad_CV)
        return Divergence(self.loss_C + other.loss_C, self.entropy_C + other.entropy_C, grad_CV)


def _differentiated(objective: Objective, student_CV: Tensor, weight: float, teacher_CV: Tensor) -> Divergence:
    leaf_CV, grad_CV = student_CV.detach(), None
    with torch.set_grad_enabled(objective.kd_weight > 0):
        leaf_CV.requires_grad_(objective.kd_weight > 0)
        kd_C = objective.kd(leaf_CV / objective.temperature, teacher_CV)
        if objective.kd_weight:
            (grad_CV,) = torch.autograd.grad(kd_C.sum() * (weight * objective.kd_weight), leaf_CV)
    logp_CV = teacher_CV.log_softmax(1)
    return Divergence(weight * kd_C.detach(), -weight * _dot(logp_CV.exp(), logp_CV), grad_CV)


# of vectors


def _vectors_at_1(objective: Objective, student: StudentChunk, vector_CD: Tensor, entropy_C: Tensor) -> ChunkLoss:
    """At T = 1, without a gradient in the logits: s (sum_v q W - (1 - r) W[y] - r c) in the hidden states."""
    exponentials, grad_CD = _by_expectation(student, 1 - objective.kd_ratio)
    kd_C = exponentials.lse_C - student.head.scale * _dot(vector_CD.double(), student.hidden_CD.double()) - entropy_C
    grad_CD.sub_(vector_CD, alpha=objective.kd_ratio)
    return ChunkLoss(grad_CD.mul_(student.head.scale), LossSums.over(exponentials.surprise_C, kd_C, entropy_C))


def _vectors_at_any(objective: Objective, student: StudentChunk, vector_CD: Tensor, entropy_C: Tensor) -> ChunkLoss:
    """At any T, with w the weight of KL: the gradient in the hidden states is g s W - w s/T c, rounded once.

    In the logits it is g = (1 - r) q + w/T q(T) - (1 - r) onehot(y).
    """
    ratio, temperature, weight = objective.kd_ratio, objective.temperature, objective.kd_weight
    scale = student.head.scale / temperature
    tempered_CV = student.logits_CV / temperature
    lse_C = softmax_(tempered_CV, student.labels_C).lse_C
    q_CV = student.logits_CV
    class_C = softmax_(q_CV, student.labels_C).surprise_C
    kd_C = lse_C - scale * _dot(vector_CD.double(), student.hidden_CD.double()) - entropy_C
    grad_CV = q_CV.mul_(1 - ratio).add_(tempered_CV, alpha=weight / temperature)
    less_CD = vector_CD * (weight * scale)
    grad_CV = subtract_labels_(grad_CV, student.labels_C, 1 - ratio)
    grad_CD = student.head.backward(grad_CV, student.hidden_CD, grad_CV, less_CD)
    return ChunkLoss(grad_CD, LossSums.over(class_C, kd_C, entropy_C))


def _by_expectation(student: StudentChunk, label_weight: float) -> "tuple[_Exponentials, Tensor]":
    """-> exponentials of a plain head's logits, in their place; sum_v q W - label_weight W[y].

    q is never normalised, only its expectation.
    """
    weight_VD = student.head.weight.detach()[: student.head.vocabulary]  # type: ignore[union-attr]
    exponentials = _exp_(student.logits_CV, student.labels_C)
    grad_CD = expectation(student.logits_CV, weight_VD).div_(exponentials.total_C1)
    return exponentials, grad_CD.sub_(weight_VD[student.labels_C], alpha=label_weight)


class _Exponentials(NamedTuple):
    total_C1: Tensor
    """Of exp(z - max z)."""
    lse_C: Tensor
    """Log of the sum of exp z, in float64."""
    surprise_C: Tensor
    """-log q[y]."""


def _exp_(logits_CV: Tensor, labels_C: Tensor) -> _Exponentials:
    """Turns logits into exp(z - max z) in place; three times as fast as torch's logsumexp and softmax on a CPU."""
    highest_C1 = logits_CV.amax(1, keepdim=True)
    label_C = logits_CV.sub_(highest_C1).gather(1, labels_C[:, None]).squeeze(1)
    total_C1 = logits_CV.exp_().sum(1, keepdim=True)
    log_total_C = total_C1.log().squeeze(1)
    lse_C = highest_C1.squeeze(1).double() + log_total_C.double()
    return _Exponentials(total_C1, lse_C, log_total_C - label_C)


def softmax_(logits_CV: Tensor, labels_C: Tensor) -> _Exponentials:
    """Turns logits into their softmax in place."""
    exponentials = _exp_(logits_CV, labels_C)
    logits_CV.div_(exponentials.total_C1)
    return exponentials


def _class_loss(logq_CV: Tensor, labels_C: Tensor) -> Tensor:
    return -logq_CV.gather(1, labels_C[:, None]).squeeze(1)


def subtract_labels_(grad_CV: Tensor, labels_C: Tensor, weight: float) -> Tensor:
    """Subtracts weight onehot(y) in place."""
    grad_CV[torch.arange(len(labels_C), device=labels_C.device), labels_C] -= weight
    return grad_CV


def _dot(a_CV: Tensor, b_CV: Tensor) -> Tensor:
    dot_C: Tensor = torch.linalg.vecdot(a_CV, b_CV)
    return dot_C
