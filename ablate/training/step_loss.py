"""The loss of one optimizer step and its gradient, micro-batch after micro-batch, and what is recorded of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablate.training import asked_teachers, batches
from ablate.training.batch_loss import batch_loss
from ablate.training.loss import LossSums, Objective
from ablate.training.own_tokens import OwnSums, OwnTokens
from ablate.training.teacher_top_k import cut_costs, cut_outputs
from ablate.training.training import Training


class StepSums(NamedTuple):
    """Over the tokens of a step, where they were computed: a card is asked for all of them at once, by `on_host`."""

    data: LossSums
    """Of rows whose answers were there."""
    own: OwnSums
    """Of the student's own answers."""
    features: Tensor
    """The loss on hidden states, of all rows; without its weight."""

    @classmethod
    def zero(cls, device: str) -> "StepSums":
        return cls(LossSums.zero(device), OwnSums.zero(device), torch.zeros((), dtype=torch.float64, device=device))

    def on_host(self, *others: Tensor) -> tuple["StepSums", list[Tensor]]:
        """-> the sums and `others` in float64 on the CPU, brought by one copy."""
        of_data = [x for x in self.data if x is not None]
        data, own, (features, *rest) = to_host(of_data, self.own.tensors, [self.features, *others])
        return StepSums(LossSums(*data), self.own.with_tensors(own), features), rest

    def with_other(self, other: "StepSums") -> "StepSums":
        """-> the sums over the tokens of both."""
        return StepSums(self.data + other.data, self.own.with_other(other.own), self.features + other.features)


def to_host(*groups: Sequence[Tensor]) -> list[list[Tensor]]:
    """-> the same groups of tensors in float64 on the CPU; those on a card are brought by one copy."""
    away = [x.detach().double().flatten() for group in groups for x in group if not x.is_cpu]
    parts = iter(torch.split(torch.cat(away).cpu(), [len(x) for x in away]) if away else ())
    return [[x.detach().double() if x.is_cpu else next(parts).view(x.shape) for x in group] for group in groups]


def accumulate(
    training: Training,
    step_rows: batches.StepRows,
    budget: int,
    device: str,
    cuts: Iterable[Sequence[int]] | None = None,
) -> StepSums:
    """Forward and backward of every micro-batch of a step. -> sums; gradients are added to, summed over tokens too.

    `cuts`: of these rows alone, cut so.
    """
    sums = StepSums.zero(device)
    by = training.cutting
    if cuts is None:
        cuts = batches.cut_step(step_rows, budget, by)
    for chosen in cuts:
        batch = batches.batch(step_rows.rows, chosen, is_packed=by.is_packed).to(device)
        training.trainable.seed_dropout(training.seed, step_rows.step, batch.rows, batch.lengths)
        own = OwnTokens(len(batch.labels_M), batch.labels_M.device) if chosen[0] in step_rows.own else None
        loss, feature_loss = _forward_and_backward(training, batch, own)
        training.trainable.collect_grads()
        data = sums.data.with_cut(loss.cut) if own else sums.data + loss
        if own:
            sums.own.add(step_rows.rows, chosen, own, loss)
        sums = StepSums(data, sums.own, sums.features + feature_loss)
    return sums


def _forward_and_backward(
    training: Training, batch: batches.MicroBatch, own: OwnTokens | None
) -> tuple[LossSums, Tensor | float]:
    """-> sums of the losses, and of that on hidden states, without its weight; `own`: where the student wrote it."""
    student, features, teacher = training.student, training.features, training.teacher
    objective = (training.own_objective if own else None) or training.objective
    compared = features.forward(student, batch, own) if features else None
    known = compared.teacher if compared else asked_teachers.outputs(teacher, "train", batch, own)
    hidden_MD = compared.hidden_MD if compared else student.hidden(batch)
    known = cut_outputs(objective, known)
    grad_MD, sums = batch_loss(objective, hidden_MD.detach(), student.head, batch, known, training.scratch)
    if features and compared:
        return sums, compared.backward(grad_MD, features.loss.weight)
    torch.autograd.backward(hidden_MD, grad_MD)
    return sums, 0.0


def mean_losses(training: Training, sums: StepSums, num_tokens: int) -> Mapping[str, Any]:
    """-> what a step is recorded with: means over its loss-bearing tokens; `class_loss` over those with labels.

    The student's own answers are no labels; where there is nothing else, the mean is none.
    """
    data, own, objective = sums.data, sums.own, training.objective
    num_labels = num_tokens - own.num_tokens
    class_loss = float(data.class_loss) / max(1, num_labels)
    if training.teacher is None:
        return {"loss": class_loss, "class_loss": class_loss}
    sums_of_all = (float(data.kd_loss), own.kd_loss, float(data.teacher_entropy) + own.teacher_entropy)
    kd_loss, own_kd_loss, entropy = (total / max(1, num_tokens) for total in sums_of_all)
    loss = _weighted(objective, class_loss * (num_labels / max(1, num_tokens)), kd_loss)
    if own.num_tokens and training.own_objective:
        loss += training.own_objective.kd_weight * own_kd_loss
    known_class_loss = None if own.num_tokens and not num_labels else class_loss
    losses = {
        "loss": loss,
        "class_loss": known_class_loss,
        "kd_loss": kd_loss + own_kd_loss,
        "teacher_entropy": entropy,
    }
    if training.features:
        feature_loss = float(sums.features) / max(1, num_tokens)
        losses |= {"loss": loss + training.features.loss.weight * feature_loss, "feature_loss": feature_loss}
    return losses if data.cut is None else {**losses, **cut_costs(data.cut, num_tokens)}


def _weighted(objective: Objective, class_loss: float, kd_loss: float) -> float:
    ratio, weight = objective.kd_ratio, objective.kd_weight
    return (class_loss * (1 - ratio) if ratio < 1 else 0.0) + (weight * kd_loss if weight else 0.0)
