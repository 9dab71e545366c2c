"""A peer's micro-batches: random rows padded on the right to the longest of four."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.setup import MICRO_BATCH

IGNORED = -100


class Batch(NamedTuple):
    """B rows of T positions."""

    ids_BT: Tensor
    mask_BT: Tensor
    labels_BT: Tensor
    """Not shifted; the first token of a row is never predicted and does not count."""


def labels(ids: Sequence[int]) -> list[int]:
    return [IGNORED, *ids[1:]]


def micro_batches(rows: Sequence[Sequence[int]], device: str) -> Iterator[Batch]:
    for begin in range(0, len(rows), MICRO_BATCH):
        cut = rows[begin : begin + MICRO_BATCH]
        parts = (
            pad_sequence([torch.tensor(ids) for ids in cut], batch_first=True),
            pad_sequence([torch.ones(len(ids), dtype=torch.long) for ids in cut], batch_first=True),
            pad_sequence([torch.tensor(labels(ids)) for ids in cut], batch_first=True, padding_value=IGNORED),
        )
        yield Batch(*(part.to(device) for part in parts))


def num_predicted(rows: Sequence[Sequence[int]]) -> int:
    return sum(len(ids) - 1 for ids in rows)
