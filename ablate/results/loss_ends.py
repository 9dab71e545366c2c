"""Where a training's loss began and where it ended, each over some steps."""

import math
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean, variance
from typing import Literal, NamedTuple, TypeAlias, get_args

from ablate.results.cell_files import number
from ablate.store.job import read_metrics

Loss: TypeAlias = Literal["loss", "class_loss"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
BEGINNING = 10
"""Steps at most: a learning rate that is warmed up has moved little by then."""
END = 0.1
"""Of all steps."""
LEAST_STEPS = 20


class LossEnds(NamedTuple):
    """Of one training, one loss."""

    first: Sequence[float]
    """Of the first steps."""
    last: Sequence[float]
    """Of the last tenth."""
    is_finite: bool
    """Whether every step's is."""

    @property
    def beginning(self) -> float:
        return fmean(self.first)

    @property
    def end(self) -> float:
        return fmean(self.last)

    @property
    def rise(self) -> float:
        """-> end less beginning, in standard errors of the difference of two means of steps."""
        return in_errors(self.last, self.first)


def loss_ends(curve: Path | None, name: Loss) -> LossEnds | None:
    """-> of the loss of that name in a metrics.jsonl; None of a training with few steps yet, or without that loss."""
    if curve is None or not curve.is_file():
        return None
    return _all_ends(curve, curve.stat().st_size).get(name)


@lru_cache(maxsize=4096)
def _all_ends(curve: Path, size: int) -> dict[str, LossEnds]:
    """Read once for all tables; `size`: one that runs grows."""
    losses: dict[str, array[float]] = {name: array("d") for name in LOSSES}
    for record in read_metrics(curve):
        for name in record.keys() & losses.keys():
            losses[name].append(number(record[name]))
    known = {name: _ends(steps) for name, steps in losses.items()}
    return {name: ends for name, ends in known.items() if ends}


def _ends(steps: "array[float]") -> LossEnds | None:
    is_finite = all(map(math.isfinite, steps))
    if is_finite and len(steps) < LEAST_STEPS:
        return None
    num_last = max(2, math.ceil(END * len(steps)))
    return LossEnds(tuple(steps[: min(BEGINNING, num_last)]), tuple(steps[-num_last:]), is_finite)


def in_errors(one: Sequence[float], other: Sequence[float]) -> float:
    """-> mean of one less that of the other, over sqrt(var / n + var / n); steps count as independent."""
    error = math.sqrt(variance(one) / len(one) + variance(other) / len(other))
    difference = fmean(one) - fmean(other)
    return difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
