"""One optimizer step of several ranks: its rows are shared out, its sums and gradients added up."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ablate.training import batches
from ablate.training.ranks import Ranks, shares
from ablate.training.step_loss import StepSums, accumulate
from ablate.training.training import Training


def accumulate_shared(
    ranks: Ranks, training: Training, step_rows: batches.StepRows, budget: int, device: str
) -> StepSums:
    """`accumulate`, each rank of its rows; the sums and gradients are those of the whole step, the same on all.

    Raises torch.OutOfMemoryError on every rank where one has run out of memory.
    """
    if ranks.size == 1:
        return accumulate(training, step_rows, budget, device)
    share = step_rows._replace(indices=shares(step_rows.rows, step_rows.indices, ranks.size)[ranks.rank])
    sums = None
    with contextlib.suppress(torch.OutOfMemoryError):
        sums = accumulate(training, share, budget, device).on_cpu()
    weights = list(training.trainable.weights.values())
    gathered = ranks.gather(None if sums is None else (sums, [weight.grad is not None for weight in weights]))
    known = [one for one in gathered if one is not None]
    if len(known) < ranks.size:
        raise torch.OutOfMemoryError("out of memory on a card of the stage")
    moved = [any(has_grads) for has_grads in zip(*(has_grads for _, has_grads in known), strict=True)]
    ranks.add_up(_grads([weight for weight, is_moved in zip(weights, moved, strict=True) if is_moved]))
    total = known[0][0]
    for other, _ in known[1:]:
        total = total.with_other(other)
    return total


def _grads(weights: Sequence[Tensor]) -> list[Tensor]:
    """-> gradients, zeros where this rank had none: of no row, or of experts that none of its rows came to."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]
