"""How the rows of one optimizer step are cut into micro-batches: freely, since its loss is one sum divided once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ablate.data.tokens import TokenRows

# B rows, T positions, M loss-bearing positions

CPU_BUDGET = 2048
OVERHEAD = 24
"""Tokens in the time that one more micro-batch costs, whatever is in it: of a large model on a CPU."""


class Cutting(NamedTuple):
    """What of a model matters for how rows are put together."""

    overhead: int = OVERHEAD
    """Tokens in the time that one more micro-batch costs."""
    borders: tuple[int, ...] = ()
    """Lengths beyond which a model runs rows otherwise (LongRoPE's other frequencies), so never beside shorter ones."""


class StepRows(NamedTuple):
    """The rows of one optimizer step."""

    step: int
    """1 the first."""
    rows: TokenRows
    """Those trained on, or rows made for this step."""
    indices: tuple[int, ...]
    """Which of them are the step's."""
    own: frozenset[int] = frozenset()
    """Those among them whose answers the student wrote."""


class StepCounts(NamedTuple):
    """Tokens of one optimizer step."""

    loss: int
    """Loss-bearing: what the step's loss is divided by."""
    all: int
    """Forwarded, padding not counted."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows forwarded together, padded on the right.

    No attention mask is needed: in a causal model nothing before the padding can see it, and no padded position is
    gathered.
    """

    rows: tuple[int, ...]
    ids_BT: Tensor
    positions_M: Tensor
    """Where in the flattened B x T the loss-bearing tokens are predicted, row by row."""
    labels_M: Tensor
    """The token that follows each of these positions."""

    def to(self, device: str) -> "MicroBatch":
        return MicroBatch(self.rows, self.ids_BT.to(device), self.positions_M.to(device), self.labels_M.to(device))


def counts(step: StepRows) -> StepCounts:
    """-> tokens of a step; rows without a loss-bearing token are not forwarded."""
    rows = step.rows
    chosen = [index for index in step.indices if rows.num_loss[index]]
    return StepCounts(int(rows.num_loss[chosen].sum()), int(rows.lengths[chosen].sum()))


def cut(rows: TokenRows, indices: Sequence[int], budget: int, by: Cutting = Cutting()) -> list[tuple[int, ...]]:
    """-> the rows of each micro-batch: longest first, at most `budget` tokens with padding, one row at least."""
    by_length = sorted((i for i in indices if rows.num_loss[i]), key=lambda i: (-int(rows.lengths[i]), i))
    cuts = []
    for _, alike in groupby(by_length, key=lambda i: sum(int(rows.lengths[i]) > border for border in by.borders)):
        chosen = list(alike)
        widths = [int(rows.lengths[i]) for i in chosen]
        cuts += [tuple(chosen[part]) for part in partition(widths, budget, by.overhead)]
    return cuts


def cut_step(step: StepRows, budget: int, by: Cutting = Cutting()) -> list[tuple[int, ...]]:
    """-> the rows of each micro-batch of a step; the student's own answers are in micro-batches of their own."""
    others = [index for index in step.indices if index not in step.own]
    own = [index for index in step.indices if index in step.own]
    return [*cut(step.rows, others, budget, by), *cut(step.rows, own, budget, by)]


def partition(widths: Sequence[int], budget: int, overhead: int) -> list[slice]:
    """Cuts a falling sequence where the whole is cheapest: each part as wide as its first, plus `overhead`.

    No part is more than `budget` with its padding, unless it is one element.
    """
    costs, begins = [0.0] + [math.inf] * len(widths), [0] * (len(widths) + 1)
    for begin, width in enumerate(widths):
        most = max(1, budget // max(width, 1))
        for end in range(begin + 1, min(begin + most, len(widths)) + 1):
            cost = costs[begin] + (end - begin) * width + overhead
            if cost < costs[end]:
                costs[end], begins[end] = cost, begin
    return _parts(begins)


def _parts(begins: Sequence[int]) -> list[slice]:
    """-> the parts, first to last, from where the part that ends at each place begins."""
    parts: list[slice] = []
    end = len(begins) - 1
    while end:
        parts.append(slice(begins[end], end))
        end = begins[end]
    return parts[::-1]


def micro_batches(
    rows: TokenRows, indices: Sequence[int], budget: int, device: str, by: Cutting = Cutting()
) -> Iterator[MicroBatch]:
    """-> the micro-batches of some rows."""
    for chosen in cut(rows, indices, budget, by):
        yield batch(rows, chosen).to(device)


def batch(rows: TokenRows, indices: Sequence[int]) -> MicroBatch:
    """Lays rows side by side. The token at position t is predicted at t - 1: the one shift there is."""
    lengths = rows.lengths[list(indices)]
    width = int(lengths.max())
    ids_BT = np.zeros((len(indices), width), np.int64)
    is_predicted_BT = np.zeros((len(indices), width), bool)
    for b, index in enumerate(indices):
        tokens, loss_mask = rows.row(index)
        ids_BT[b, : len(tokens)] = tokens
        is_predicted_BT[b, : len(tokens) - 1] = loss_mask[1:]
    positions_M = np.flatnonzero(is_predicted_BT)
    labels_M = ids_BT.reshape(-1)[positions_M + 1]
    return MicroBatch(
        tuple(indices), torch.from_numpy(ids_BT), torch.from_numpy(positions_M), torch.from_numpy(labels_M)
    )


def first_budget(recipe_budget: int | None, device: str) -> int:
    """-> tokens a micro-batch: what the study says, else what suits the device; halved when memory runs out.

    On a GPU one micro-batch for each 2 MiB of free memory, which fits models of a few billion weights; too much is
    found out by the first step and halved.
    """
    if recipe_budget is not None:
        return recipe_budget
    if device == "cpu":
        return CPU_BUDGET
    free, total = torch.cuda.mem_get_info()
    ours = int(total * torch.cuda.get_per_process_memory_fraction())  # a stage may have a share of its card alone
    return max(CPU_BUDGET, min(32_768, min(free, ours) // 2**21))
