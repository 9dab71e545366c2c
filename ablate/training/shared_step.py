"""One optimizer step of several ranks: its rows are shared out, its sums and gradients added up."""

from collections.abc import Sequence
from functools import reduce
from typing import TypeAlias

import torch
from torch import Tensor

from ablate.training import batches
from ablate.training.ranks import Ranks, others_waiting, shares
from ablate.training.step_loss import StepSums, accumulate
from ablate.training.training import Training

Cuts: TypeAlias = Sequence[Sequence[int]]
"""The rows of each micro-batch."""


def accumulate_shared(
    ranks: Ranks, training: Training, step_rows: batches.StepRows, budget: int, device: str
) -> StepSums:
    """`accumulate`, each rank of its rows; the sums and gradients are those of the whole step, the same on all.

    Raises torch.OutOfMemoryError on every rank where one has run out of memory, but StageError (oom) on that one alone
    where the others wait for it.
    """
    if ranks.size == 1:
        return accumulate(training, step_rows, budget, device)
    cuts = cuts_by_rank(ranks, training, step_rows, budget)
    sums = _accumulated(ranks, training, step_rows, cuts, device)
    weights = list(training.trainable.weights.values())
    gathered = ranks.gather(None if sums is None else (sums, [weight.grad is not None for weight in weights]))
    known = [one for one in gathered if one is not None]
    if len(known) < ranks.size:
        raise torch.OutOfMemoryError("out of memory on a card of the stage")
    moved = [any(has_grads) for has_grads in zip(*(has_grads for _, has_grads in known), strict=True)]
    with others_waiting():
        ranks.add_up(_grads([weight for weight, is_moved in zip(weights, moved, strict=True) if is_moved]))
    return reduce(StepSums.with_other, (of_rank for of_rank, _ in known))


def cuts_by_rank(ranks: Ranks, training: Training, step_rows: batches.StepRows, budget: int) -> list[Cuts]:
    """-> the micro-batches of each rank."""
    parts = shares(step_rows.rows, step_rows.indices, ranks.size)
    return [batches.cut_step(step_rows._replace(indices=part), budget, training.cutting) for part in parts]


def _accumulated(
    ranks: Ranks, training: Training, step_rows: batches.StepRows, cuts: Sequence[Cuts], device: str
) -> StepSums | None:
    """-> the sums over this rank's rows; None: out of memory. `cuts`: of each rank."""
    mine = cuts[ranks.rank]
    if ranks.is_in_step:
        with ranks.passing():
            sums = accumulate(training, step_rows, 0, device, mine)
            _accompany(training, step_rows, device, max(map(len, cuts)) - len(mine))
            return sums.on_host()[0]
    try:
        return accumulate(training, step_rows, 0, device, mine).on_host()[0]
    except torch.OutOfMemoryError:
        return None


def _accompany(training: Training, step_rows: batches.StepRows, device: str, num: int) -> None:
    """Runs a shortest row so often, for nothing: others need this rank's part of the weights in their micro-batches."""
    if num == 0:
        return
    rows, weights = step_rows.rows, list(training.trainable.weights.values())
    shortest = min((i for i in step_rows.indices if rows.num_loss[i]), key=lambda i: int(rows.lengths[i]))
    before = [None if weight.grad is None else weight.grad.clone() for weight in weights]
    for _ in range(num):
        accumulate(training, step_rows, 0, device, [(shortest,)])
    for weight, grad in zip(weights, before, strict=True):
        weight.grad = grad


def _grads(weights: Sequence[Tensor]) -> list[Tensor]:
    """-> gradients, zeros where this rank had none: of no row, or of experts that none of its rows came to."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]
