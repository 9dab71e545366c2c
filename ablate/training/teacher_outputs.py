"""What is known of a teacher about some tokens: nothing, its hidden states, or vectors; and the loss against each."""

import math
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ablate.training.head import Head, expectation
from ablate.training.logits_loss import (
    Exponentials,
    exp_,
    logits_loss,
    several_logits_losses,
    softmax_,
    subtract_labels_,
)
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
        if objective.temperature != 1.0:
            teacher_CV.div_(objective.temperature)
        grad_CV, sums = logits_loss(objective, student.logits_to_overwrite(), student.labels_C, teacher_CV)
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

    `probabilities`: one teacher, p = sum_i w_i softmax(z_i/T), the arithmetic mean of an ensemble (Hinton et al. 2015,
    1503.02531, section 1, who weigh it evenly). `losses`: KD = sum_i w_i KD_i. For forward KL the two have one
    gradient, and sum_i w_i KL(p_i || q) = KL(p || q) + sum_i w_i KL(p_i || p).
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
        teachers = self._tempered(student.tokens, objective.temperature, scratch)
        if self.mean == "losses":
            weighted = zip(self.weights, teachers, strict=True)
            grad_CV, sums = several_logits_losses(objective, logits_CV, student.labels_C, weighted)
        else:
            grad_CV, sums = logits_loss(objective, logits_CV, student.labels_C, self._mean(teachers))
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


def _by_expectation(student: StudentChunk, label_weight: float) -> tuple[Exponentials, Tensor]:
    """-> exponentials of a plain head's logits, in their place; sum_v q W - label_weight W[y].

    q is never normalised, only its expectation.
    """
    weight_VD = student.head.weight.detach()[: student.head.vocabulary]  # type: ignore[union-attr]
    exponentials = exp_(student.logits_CV, student.labels_C)
    grad_CD = expectation(student.logits_CV, weight_VD).div_(exponentials.total_C1)
    return exponentials, grad_CD.sub_(weight_VD[student.labels_C], alpha=label_weight)


def _dot(a_CV: Tensor, b_CV: Tensor) -> Tensor:
    dot_C: Tensor = torch.linalg.vecdot(a_CV, b_CV)
    return dot_C
