"""How the rows of one optimizer step are cut into micro-batches: freely, since its loss is one sum divided once."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.data.tokens import TokenRows
from ablate.training.attention import Packing

# B rows, T positions, M loss-bearing positions, N tokens of all rows

Array: TypeAlias = NDArray[np.int64]

CPU_BUDGET = 2048
"""Tokens of a micro-batch on a CPU, of trees of questions."""
CPU_ROWS_BUDGET = 640
"""The same of rows: larger ones are no quicker there, and hold more."""
OVERHEAD = 24
"""Tokens in the time that one more micro-batch costs, whatever is in it: of a large model on a CPU."""


class Cutting(NamedTuple):
    """What of a model matters for how rows are put together."""

    overhead: int = OVERHEAD
    """Tokens in the time that one more micro-batch costs."""
    borders: tuple[int, ...] = ()
    """Lengths beyond which a model runs rows otherwise (LongRoPE's other frequencies), so never beside shorter ones."""
    is_packed: bool = False
    """Whether rows stand one after the other without padding, each attended to by itself."""

    @classmethod
    def of_all(cls, cuttings: Sequence["Cutting"]) -> "Cutting":
        """-> how rows are put together that several models read, the first the one that is trained."""
        borders = {border for one in cuttings for border in one.borders}
        return cls(cuttings[0].overhead, tuple(sorted(borders)), all(one.is_packed for one in cuttings))


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


class ModelInputs(NamedTuple):
    """Tokens to be forwarded, and where hidden states are wanted."""

    ids_BT: Tensor
    positions_M: Tensor
    """In the flattened B x T."""
    packing: Packing | None = None


@dataclass(frozen=True)
class MicroBatch:
    """Rows forwarded together: one after the other in 1 x N, or padded on the right.

    Padding needs no attention mask: in a causal model nothing before it can see it, and no padded position is gathered.
    """

    rows: tuple[int, ...]
    ids_BT: Tensor
    positions_M: Tensor
    """Where in the flattened B x T the loss-bearing tokens are predicted, row by row."""
    labels_M: Tensor
    """The token that follows each of these positions."""
    num_loss: tuple[int, ...]
    """Loss-bearing tokens of each row."""
    lengths: tuple[int, ...]
    """Tokens of each row, padding not counted."""
    packing: Packing | None = None
    """None: padded."""

    def to(self, device: str) -> "MicroBatch":
        packing = self.packing and self.packing._replace(
            places_1N=to_device(self.packing.places_1N, device), offsets=to_device(self.packing.offsets, device)
        )
        ids_BT, positions_M, labels_M = (to_device(x, device) for x in (self.ids_BT, self.positions_M, self.labels_M))
        return MicroBatch(self.rows, ids_BT, positions_M, labels_M, self.num_loss, self.lengths, packing)


def to_device(x: Tensor, device: str | torch.device) -> Tensor:
    """-> a tensor of the CPU on the device; a card is not waited for."""
    device = torch.device(device)
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def counts(step: StepRows) -> StepCounts:
    """-> tokens of a step; rows without a loss-bearing token are not forwarded."""
    rows = step.rows
    chosen = [index for index in step.indices if rows.num_loss[index]]
    return StepCounts(int(rows.num_loss[chosen].sum()), int(rows.lengths[chosen].sum()))


def cut(rows: TokenRows, indices: Sequence[int], budget: int, by: Cutting = Cutting()) -> list[tuple[int, ...]]:
    """-> the rows of each micro-batch: longest first, at most `budget` tokens with padding, one row at least.

    Where rows are packed the micro-batches are as few as can be, and about equally large.
    """
    by_length = sorted((i for i in indices if rows.num_loss[i]), key=lambda i: (-int(rows.lengths[i]), i))
    cuts = []
    for _, alike in groupby(by_length, key=lambda i: sum(int(rows.lengths[i]) > border for border in by.borders)):
        chosen = list(alike)
        widths = [int(rows.lengths[i]) for i in chosen]
        if by.is_packed:
            cuts += [tuple(chosen[place] for place in part) for part in packed_evenly(widths, budget)]
        else:
            cuts += [tuple(chosen[part]) for part in partition(widths, budget, by.overhead)]
    return cuts


def size(rows: TokenRows, cut_rows: Sequence[int], by: Cutting) -> int:
    """-> tokens that a micro-batch forwards, padding included."""
    lengths = rows.lengths[list(cut_rows)]
    return int(lengths.sum() if by.is_packed else len(lengths) * lengths.max())


def cut_step(step: StepRows, budget: int, by: Cutting = Cutting()) -> list[tuple[int, ...]]:
    """-> the rows of each micro-batch of a step; the student's own answers are in micro-batches of their own."""
    others = [index for index in step.indices if index not in step.own]
    own = [index for index in step.indices if index in step.own]
    return [*cut(step.rows, others, budget, by), *cut(step.rows, own, budget, by)]


def packed_evenly(widths: Sequence[int], budget: int) -> list[list[int]]:
    """-> the elements of each part, as few parts as this finds: the next longest goes to the part with least in it.

    No part is more than `budget`, unless it is one element.
    """
    num_parts = max(1, math.ceil(sum(widths) / max(budget, 1))) if widths else 0
    while True:
        parts: list[list[int]] = [[] for _ in range(num_parts)]
        by_size = [(0, part) for part in range(num_parts)]
        for place in sorted(range(len(widths)), key=lambda place: -widths[place]):
            least, part = by_size[0]
            parts[part].append(place)
            heapq.heapreplace(by_size, (least + widths[place], part))
        parts = [part for part in parts if part]
        if all(len(part) == 1 or sum(widths[place] for place in part) <= budget for part in parts):
            return parts
        num_parts += 1


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
        yield batch(rows, chosen, is_packed=by.is_packed).to(device)


def batch(rows: TokenRows, indices: Sequence[int], *, is_packed: bool = False) -> MicroBatch:
    """-> rows side by side, or one after the other. The token at t is predicted at t - 1: the one shift there is."""
    return _packed(rows, indices) if is_packed else _padded(rows, indices)


def _packed(rows: TokenRows, indices: Sequence[int]) -> MicroBatch:
    lengths = rows.lengths[list(indices)]
    tokens, loss_masks = zip(*(rows.row(index) for index in indices), strict=True)
    ids_N = np.concatenate(tokens).astype(np.int64)
    is_predicted_N = np.concatenate([np.append(loss_mask[1:], False) for loss_mask in loss_masks])
    positions_M = np.flatnonzero(is_predicted_N)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places_N = np.arange(len(ids_N)) - np.repeat(offsets[:-1], lengths)
    packing = Packing(
        tuple(lengths.tolist()), torch.from_numpy(places_N)[None], torch.from_numpy(offsets.astype(np.int32))
    )
    return _micro_batch(rows, indices, ids_N[None], positions_M, packing)


def _padded(rows: TokenRows, indices: Sequence[int]) -> MicroBatch:
    lengths = rows.lengths[list(indices)]
    width = int(lengths.max())
    ids_BT = np.zeros((len(indices), width), np.int64)
    is_predicted_BT = np.zeros((len(indices), width), bool)
    for b, index in enumerate(indices):
        tokens, loss_mask = rows.row(index)
        ids_BT[b, : len(tokens)] = tokens
        is_predicted_BT[b, : len(tokens) - 1] = loss_mask[1:]
    return _micro_batch(rows, indices, ids_BT, np.flatnonzero(is_predicted_BT))


def _micro_batch(
    rows: TokenRows, indices: Sequence[int], ids_BT: Array, positions_M: Array, packing: Packing | None = None
) -> MicroBatch:
    labels_M = ids_BT.reshape(-1)[positions_M + 1]
    num_loss = tuple(rows.num_loss[list(indices)].tolist())
    lengths = tuple(rows.lengths[list(indices)].tolist())
    ids, positions, labels = (torch.from_numpy(array) for array in (ids_BT, positions_M, labels_M))
    return MicroBatch(tuple(indices), ids, positions, labels, num_loss, lengths, packing)
