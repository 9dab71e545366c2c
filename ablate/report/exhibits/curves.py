"""Training curves as numbers: read from metrics.jsonl, smoothed, on one axis, thinned to what an eye can see."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, takewhile
from typing import Any

from ablate.report.formatting import plain
from ablate.results.collect import CellResult
from ablate.store.job import read_metrics

MOST_POINTS = 240
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
LOSSES = ("kd_loss", "class_loss", "loss")
COLUMNS = ("step", "tokens", *LOSSES)


@dataclass(frozen=True)
class Curve:
    """One training."""

    label: str
    style: dict[str, Any]
    cell: CellResult
    columns: Mapping[str, "array[float]"]
    """Each of COLUMNS, a number a step, NaN where a step does not have it: eight bytes each, so that a million steps
    fit into memory."""
    is_reference: bool = False
    """The fine-tuned student: shown beside, in the panel of the class loss alone."""

    @property
    def num_steps(self) -> int:
        return len(self.columns["step"])

    @property
    def has_tokens(self) -> bool:
        """Whether each step says how many tokens it had."""
        return not any(map(math.isnan, self.columns["tokens"]))

    @property
    def beta(self) -> float:
        """Of the moving average: over about a twentieth of the training; 0 (none) for a very short one."""
        return min(round(max(0.0, 1 - 20 / max(self.num_steps, 1)), 2), 0.98)

    @cached_property
    def raw(self) -> Mapping[str, "array[float]"]:
        """Loss -> its values, until it is no longer finite; empty where it was not measured."""
        return {loss: array("d", takewhile(math.isfinite, self.columns[loss])) for loss in LOSSES}

    @cached_property
    def smooth(self) -> Mapping[str, "array[float]"]:
        return {loss: debiased(values, self.beta) for loss, values in self.raw.items()}

    def has(self, loss: str) -> bool:
        """Whether it is shown by this loss: it was measured, and a fine-tuning is no match for the distilled losses."""
        return bool(self.raw[loss]) and (loss == "class_loss" or not self.is_reference)

    def positions(self, is_tokens: bool) -> "array[float]":
        """Optimizer step, or loss-bearing tokens so far."""
        return array("d", accumulate(self.columns["tokens"])) if is_tokens else self.columns["step"]


def read_curve(label: str, style: dict[str, Any], cell: CellResult, *, is_reference: bool = False) -> Curve | None:
    """-> the training behind a cell as far as it got, or None when it has no step yet."""
    columns = {name: array("d") for name in COLUMNS}
    for record in read_metrics(cell.curve) if cell.curve else ():
        if record.get("tokens") != 0:  # which has no loss
            for name, column in columns.items():
                column.append(_number(record.get(name)))
    return Curve(label, style, cell, columns, is_reference) if columns["step"] else None


def betas_text(curves: Sequence[Curve]) -> str:
    """`0.67 or 0.98`: those of all moving averages."""
    return " or ".join(map(plain, sorted({curve.beta for curve in curves})))


def debiased(values: Sequence[float], beta: float) -> "array[float]":
    """Exponential moving average without the bias of its start: y/w, y = beta y + x, w = beta w + 1.

    The weights' sum w is Adam's bias correction, (1 - beta^t) / (1 - beta) (Kingma and Ba 2015).
    """
    y = w = 0.0
    averages = array("d")
    for value in values:
        y, w = beta * y + value, beta * w + 1
        averages.append(y / w)
    return averages


def needs_tokens(curves: Sequence[Curve]) -> bool:
    """Whether steps are unlike (other batch sizes), so that only tokens put the curves on one axis."""
    return len({_batch_size(curve) for curve in curves}) > 1 and all(curve.has_tokens for curve in curves)


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """-> at most MOST_POINTS points, first and last kept."""
    if len(ys) <= MOST_POINTS:
        return list(xs[: len(ys)]), list(ys)
    picked = sorted({round(i * (len(ys) - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})
    return [xs[i] for i in picked], [ys[i] for i in picked]


def banded(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """-> x, lowest and highest y of each of at most MOST_POINTS / 2 stretches: a raw curve as a band."""
    size = math.ceil(len(ys) / (MOST_POINTS / 2))
    stretches = [ys[start : start + size] for start in range(0, len(ys), size)]
    middles = [xs[min(start + size // 2, len(ys) - 1)] for start in range(0, len(ys), size)]
    return middles, list(map(min, stretches)), list(map(max, stretches))


def _batch_size(curve: Curve) -> int:
    setting = curve.cell.cell.row.setting
    return setting.finetune_student.batch_size if curve.is_reference else setting.distill.batch_size


def _number(value: Any) -> float:
    """metrics.jsonl writes what is not finite as a string; what is no number is not measured."""
    return float(value) if isinstance(value, int | float) or value in NOT_FINITE else math.nan
