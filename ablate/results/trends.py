"""One contrast for an axis that has an order: whether scores rise or fall along it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.results.aligned_rows import align_rows, distilled
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.multiple_comparisons import ALPHA, holm
from ablate.results.paired import Contrast

Direction: TypeAlias = Literal["rises", "falls", "inconclusive", "suggestive"]
LEAST_VALUES = 3
"""Of two values the trend is their difference, which the table has."""


class Axis(NamedTuple):
    """The one numeric field in which some rows differ."""

    path: str
    values: tuple[float, ...]
    """One a row."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def is_log(self) -> bool:
        """Learning rates are tried by factors."""
        return self.name == "lr" and min(self.values) > 0

    @property
    def centered(self) -> list[float]:
        """-> x less its mean: the logarithm of a learning rate, else the value."""
        x = [math.log(value) if self.is_log else value for value in self.values]
        return [one - math.fsum(x) / len(x) for one in x]


class Trend(NamedTuple):
    """How scores by one metric move along an axis."""

    metric: Metric
    axis: Axis
    rows: tuple[RowResult, ...]
    contrast: Contrast
    """From the lowest to the highest value, along the straight line."""
    p_holm: float
    """Over the metrics of the same rows."""
    bend: Contrast
    """How far the rows are from a straight line, by their quadratic contrast."""
    left_out: tuple[tuple[RowResult, str], ...]

    @property
    def pair(self) -> str:
        return self.rows[0].row.setting.pair

    @property
    def is_bent(self) -> bool:
        """Whether a line misleads; uncorrected, for it is a warning and no finding."""
        return self.bend.p < ALPHA

    @property
    def direction(self) -> Direction:
        """One seed is never more than suggestive."""
        if not self.p_holm < ALPHA:
            return "inconclusive"
        if not self.contrast.has_seed_noise:
            return "suggestive"
        return "rises" if self.contrast.value > 0 else "falls"


def trends_of(results: Results, ablation: AblationResult) -> tuple[Trend, ...]:
    """-> one for each metric, of the distilled rows of each control that differ in one numeric field alone."""
    name = f"trends/{ablation.name}"
    if name not in results.memo:
        results.memo[name] = tuple(trend for _, rows in distilled(ablation) for trend in _trends(ablation, rows))
    trends: tuple[Trend, ...] = results.memo[name]
    return trends


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json."""
    for ablation in results.ablations:
        for one in trends_of(results, ablation):
            low, high = one.contrast.interval()
            yield {
                "ablation": ablation.name,
                "pair": one.pair,
                "axis": one.axis.path,
                "scale": "log" if one.axis.is_log else "linear",
                "rows": [row.row.name for row in one.rows],
                "metric": str(one.metric),
                **one.contrast._asdict(),
                "low": low,
                "high": high,
                "p": one.contrast.p,
                "p_holm": one.p_holm,
                "p_bend": one.bend.p,
                "direction": one.direction,
            }


def weights(axis: Axis) -> list[float]:
    """-> of each row, so that sum of w * mean score is how far the least-squares line rises over the whole axis.

    w_j = (x_j - mean x) / sum of (x - mean x)^2 * (max x - min x): the linear contrast of ordered treatments (Maxwell
    and Delaney 2004, chapter 6), for unequal steps.
    """
    x = axis.centered
    squares = math.fsum(one**2 for one in x)
    return [one / squares * (max(x) - min(x)) for one in x]


def bend_weights(axis: Axis) -> list[float]:
    """-> of each row: x^2 less what a straight line says of it, the quadratic contrast; its scale means nothing."""
    x = axis.centered
    slope = math.fsum(one**3 for one in x) / math.fsum(one**2 for one in x)
    level = math.fsum(one**2 for one in x) / len(x)
    rest = [one**2 - level - slope * one for one in x]
    return [one / max(map(abs, rest)) for one in rest]


def varied_paths(rows: Sequence[RowResult]) -> list[str]:
    """-> the settings in which rows of one table differ."""
    paths = {path for row in rows for path in row.row.values}
    return [path for path in sorted(paths) if len({repr(row.row.values.get(path)) for row in rows}) > 1]


def axis_of(rows: Sequence[RowResult]) -> Axis | None:
    """-> the axis along which rows stand: they differ in one numeric field alone, and take three values or more."""
    varied = varied_paths(rows)
    if len(varied) != 1:
        return None
    values = [row.row.values.get(varied[0]) for row in rows]
    numbers = tuple(float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    is_axis = len(numbers) == len(values) and len(set(numbers)) >= LEAST_VALUES
    return Axis(varied[0], numbers) if is_axis else None


def _trends(ablation: AblationResult, rows: Sequence[RowResult]) -> list[Trend]:
    if axis_of(rows) is None:
        return []
    trends = []
    for metric in ablation.columns:
        aligned = align_rows(rows, metric)
        axis = axis_of(aligned.rows)
        if axis:
            line, bend = aligned.contrast(weights(axis)), aligned.contrast(bend_weights(axis))
            trends.append(Trend(metric, axis, aligned.rows, line, line.p, bend, aligned.left_out))
    adjusted = holm([trend.contrast.p for trend in trends])
    return [trend._replace(p_holm=p) for trend, p in zip(trends, adjusted, strict=True)]
