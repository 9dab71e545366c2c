"""Training curves as numbers: read from metrics.jsonl, smoothed, on one axis, thinned to what an eye can see."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat, takewhile
from typing import Any

from ablate.report.formatting import plain
from ablate.results.collect import CellResult
from ablate.store.job import read_metrics

MOST_POINTS, FEWEST_POINTS = 160, 60
POINTS_OF_ALL = 1500
"""Of a panel, about: where many lines cross, nobody follows one point by point."""
MOST_RAW = 8
"""Trainings of a figure, up to which their single steps are drawn behind them."""
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
LOSSES = ("kd_loss", "class_loss", "loss")
ANSWERS = ("own_reverse_kl", "answer_length", "ended")
"""What a training whose student writes answers is watched by."""
MORE_OF_ANSWERS = ("repetition", "student_entropy", "student_share", "written_tokens_s")
MEASURES = (*LOSSES, "feature_loss", *ANSWERS, *MORE_OF_ANSWERS)
COLUMNS = frozenset({"step", "tokens", *MEASURES})
TITLES = {
    "own_reverse_kl": "reverse KL on own answers",
    "answer_length": "answer length (tokens)",
    "ended": "share of answers that ended",
    "repetition": "share of repeated 4-grams",
    "student_entropy": "entropy on own answers (nats)",
    "student_share": "share of rows the student wrote",
    "written_tokens_s": "tokens written a second",
}
"""Of measures whose own name says too little."""


@dataclass(frozen=True)
class Curve:
    """One training."""

    label: str
    style: dict[str, Any]
    cell: CellResult
    columns: Mapping[str, "array[float]"]
    """Those of COLUMNS that were measured, a number a step up to the last step that has one: NaN where a step lacks it,
    infinite where it was not finite. Eight bytes each, so that a million steps fit into memory."""
    is_reference: bool = False
    """The fine-tuned student: shown beside, in the panel of the class loss alone."""

    @property
    def num_steps(self) -> int:
        return len(self.columns["step"])

    @property
    def has_tokens(self) -> bool:
        """Whether each step says how many tokens it had."""
        tokens = self.columns.get("tokens", ())
        return len(tokens) == self.num_steps and not any(map(math.isnan, tokens))

    @property
    def beta(self) -> float:
        """Of the moving average: over about a twentieth of the training; 0 (none) for a very short one."""
        return min(round(max(0.0, 1 - 20 / max(self.num_steps, 1)), 2), 0.98)

    @cached_property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Measure -> the numbers of the steps that have it, until it is no longer finite."""
        return {name: _places(self.columns[name]) for name in MEASURES if name in self.columns}

    @cached_property
    def raw(self) -> Mapping[str, "array[float]"]:
        """Measure -> its values at its places."""
        return {name: array("d", map(self.columns[name].__getitem__, places)) for name, places in self.places.items()}

    @cached_property
    def smooth(self) -> Mapping[str, "array[float]"]:
        return {name: debiased(values, self.beta) for name, values in self.raw.items()}

    def has(self, measure: str) -> bool:
        """Whether it is shown by this measure: it was measured, and of a fine-tuning nothing else is comparable."""
        return bool(self.raw.get(measure)) and (measure == "class_loss" or not self.is_reference)

    def is_measured(self, measure: str) -> bool:
        """Whether some step has it, be it finite or not."""
        return not all(map(math.isnan, self.columns.get(measure, ())))

    def is_cut(self, measure: str) -> bool:
        """Whether it was no longer finite at some step."""
        return any(map(math.isinf, self.columns[measure]))

    def positions(self, is_tokens: bool) -> "array[float]":
        """Optimizer step, or loss-bearing tokens so far."""
        return array("d", accumulate(self.columns["tokens"])) if is_tokens else self.columns["step"]


def read_curve(label: str, style: dict[str, Any], cell: CellResult, *, is_reference: bool = False) -> Curve | None:
    """-> the training behind a cell as far as it got, or None when it has no step yet."""
    columns = {"step": array("d")}
    for record in read_metrics(cell.curve) if cell.curve else ():
        if record.get("tokens") != 0:  # which has no loss
            _add(columns, record)
    return Curve(label, style, cell, columns, is_reference) if columns["step"] else None


def _add(columns: dict[str, "array[float]"], record: Mapping[str, Any]) -> None:
    """Appends a step to the columns, of which those that earlier steps lack begin with NaN."""
    num = len(columns["step"])
    for name in COLUMNS & record.keys():
        column = columns.setdefault(name, array("d"))
        column.extend(repeat(math.nan, num - len(column)))
        column.append(_number(record[name]))


def _places(column: Sequence[float]) -> Sequence[int]:
    num = sum(1 for _ in takewhile(lambda value: not math.isinf(value), column))
    known = array("q", (place for place in range(num) if not math.isnan(column[place])))
    return known if len(known) < num else range(num)


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


def thinned(xs: Sequence[float], ys: Sequence[float], num_lines: int = 1) -> tuple[list[float], list[float]]:
    """-> at most MOST_POINTS points, fewer of one of many lines; first and last kept."""
    most = min(MOST_POINTS, max(FEWEST_POINTS, POINTS_OF_ALL // num_lines))
    if len(ys) <= most:
        return list(xs[: len(ys)]), list(ys)
    picked = sorted({round(i * (len(ys) - 1) / (most - 1)) for i in range(most)})
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
    """metrics.jsonl writes what is not finite as a string: infinity here. NaN: what is no number is not measured."""
    return float(value) if isinstance(value, int | float) else math.inf if value in NOT_FINITE else math.nan
