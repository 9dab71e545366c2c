"""Whether scores rise or fall along an axis that has an order: the trends among an ablation's own contrasts."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.results.aligned_rows import align_rows
from ablate.results.axes import Axis, bend_weights, numeric_axis
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.effects import Effect, effects_of
from ablate.results.multiple_comparisons import ALPHA
from ablate.results.paired import Contrast

Direction: TypeAlias = Literal["rises", "falls", "flat", "inconclusive", "suggestive"]


class Trend(NamedTuple):
    """How scores by one metric move along an axis."""

    axis: Axis
    rows: tuple[RowResult, ...]
    effect: Effect
    """From the lowest to the highest value, along the straight line."""
    bend: Contrast
    """How far the rows are from a straight line, by their quadratic contrast."""

    @property
    def metric(self) -> Metric:
        return self.effect.metric

    @property
    def contrast(self) -> Contrast:
        return self.effect.contrast

    @property
    def pair(self) -> str:
        return self.effect.pair

    @property
    def is_bent(self) -> bool:
        """Whether a line misleads; uncorrected, for it is a warning and no finding."""
        return self.bend.p < ALPHA

    @property
    def direction(self) -> Direction:
        """The verdict of its effect: where it says that a difference is real, which way the scores go."""
        if self.effect.verdict in ("better", "worse"):
            return "rises" if self.contrast.value > 0 else "falls"
        if self.effect.verdict == "equivalent":
            return "flat"
        return "suggestive" if self.effect.verdict == "suggestive" else "inconclusive"


def trends_of(results: Results, ablation: AblationResult) -> tuple[Trend, ...]:
    """-> of each metric one for every ordered axis."""
    name = f"trends/{ablation.name}"
    if name not in results.memo:
        effects = effects_of(results, ablation)
        results.memo[name] = tuple(trend for one in effects if one.kind == "trend" and (trend := _trend(one)))
    trends: tuple[Trend, ...] = results.memo[name]
    return trends


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json."""
    for ablation in results.ablations:
        for one in trends_of(results, ablation):
            yield {
                "ablation": ablation.name,
                "pair": one.pair,
                "axis": one.axis.path,
                "scale": "log" if one.axis.is_log else "linear",
                "rows": [row.row.name for row in one.rows],
                "metric": str(one.metric),
                **one.contrast.record(),
                "low": one.effect.low,
                "high": one.effect.high,
                "p": one.contrast.p,
                "p_holm": one.effect.p_holm,
                "p_bend": one.bend.p,
                "direction": one.direction,
            }


def _trend(effect: Effect) -> Trend | None:
    rows = tuple(row for row, _ in effect.rows)
    axis = numeric_axis(effect.axis[0], rows)
    return Trend(axis, rows, effect, align_rows(rows, effect.metric).contrast(bend_weights(axis))) if axis else None
