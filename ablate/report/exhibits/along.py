"""The difference to the control along an axis of numbers: points with their intervals, one panel a metric."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ablate.report.exhibits import drawing
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.differences import face, told
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.exhibits.words import decimals, metric_name, plain
from ablate.results.aligned_rows import distilled
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.trends import Axis, axis_of
from ablate.results.verdicts import Finding, findings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TICKS = 8


class Line(NamedTuple):
    """The distilled rows of one control, by one metric."""

    pair: str
    axis: Axis
    metric: Metric
    points: tuple[tuple[float, Finding], ...]
    """Value on the axis and what was found, in the order of the axis; only what can be compared."""


@EXHIBITS.register("differences-along", order=80)
def along(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-along, and the panels of the page; None where rows follow no common axis of numbers."""
    lines = tuple(_lines(results, ablation))
    metrics = [metric for metric in ablation.columns if any(line.metric == metric for line in lines)]
    if not metrics or len({line.axis.path for line in lines}) > 1:
        return None
    name, delta = f"{ablation.name}-along", results.study.report.delta
    return figure(
        name,
        partial(_picture, ablation, lines, metrics, delta),
        numbered(name, metrics, partial(_panel, ablation, lines, delta), partial(_alt, ablation, lines)),
        title=f"Along {lines[0].axis.name}: {ablation.title}",
        caption=caption(lines),
        legend=_legend(lines),
        is_wide=True,
    )


def caption(lines: Sequence[Line]) -> str:
    scale = " (logarithmic)" if lines[0].axis.is_log else ""
    return (
        f"Difference to the control along {lines[0].axis.path}{scale}; bars: the intervals of the comparisons above,"
        " which hold together with 95 %. The lines between the points say nothing of what lies between."
    )


def _lines(results: Results, ablation: AblationResult) -> Iterator[Line]:
    found = findings_of(results, ablation)
    for _, rows in distilled(ablation):
        axis = axis_of(rows)
        for metric in ablation.columns if axis else ():
            assert axis
            known = [(value, found.of(row, metric)) for value, row in zip(axis.values, rows, strict=True)]
            points = sorted(((x, one) for x, one in known if one and one.contrast), key=lambda point: point[0])
            if len(points) > 1:
                yield Line(rows[0].row.setting.pair, axis, metric, tuple(points))


def _pairs(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.pair for line in lines))


def _legend(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    pairs = _pairs(lines)
    colors = (drawing.VARIABLES[drawing.style_of(number)["color"]] for number in range(len(pairs)))
    return [(pair, color, "none") for pair, color in zip(pairs, colors, strict=True)] if len(pairs) > 1 else []


def _picture(ablation: AblationResult, lines: Sequence[Line], metrics: Sequence[Metric], delta: float) -> "Figure":
    figure, axes = drawing.panels(len(metrics), 3.3, 2.9)
    for ax, metric in zip(axes, metrics, strict=True):
        _draw(ax, ablation, lines, metric, delta)
    return figure


def _panel(ablation: AblationResult, lines: Sequence[Line], delta: float, metric: Metric) -> "Figure":
    figure, axes = drawing.panels(1, 4.4, 3.0)
    _draw(axes[0], ablation, lines, metric, delta)
    return figure


def _draw(ax: "Axes", ablation: AblationResult, lines: Sequence[Line], metric: Metric, delta: float) -> None:
    ax.set_title(f"{metric_name(metric, ablation.columns)}: difference")
    ax.set_xlabel(lines[0].axis.name)
    if lines[0].axis.is_log:
        ax.set_xscale("log")
    values = sorted({value for line in lines for value, _ in line.points})
    ticks = values if len(values) <= MOST_TICKS else values[:: math.ceil(len(values) / MOST_TICKS)]
    ax.set_xticks(ticks, [plain(value) for value in ticks])
    ax.minorticks_off()
    ax.axhspan(-delta, delta, color=drawing.GRID, alpha=0.6, linewidth=0)
    ax.axhline(0, color=drawing.MUTED, linewidth=1, zorder=1)
    pairs = _pairs(lines)
    for line in (line for line in lines if line.metric == metric):
        _draw_line(ax, line, drawing.style_of(pairs.index(line.pair))["color"])


def _draw_line(ax: "Axes", line: Line, color: str) -> None:
    ax.plot([x for x, _ in line.points], [_value(one) for _, one in line.points], color=color, linewidth=0.8, alpha=0.6)
    places = decimals([one.contrast.se for _, one in line.points if one.contrast])
    for x, one in line.points:
        if math.isfinite(one.low):
            ax.plot([x, x], [one.low, one.high], color=color, linewidth=1.4)
        look = face(one.verdict, color)
        ax.plot(x, _value(one), marker="o", markersize=6, color=color, zorder=3, label=told(one, places), **look)


def _value(one: Finding) -> float:
    return one.contrast.value if one.contrast else math.nan


def _alt(ablation: AblationResult, lines: Sequence[Line], metric: Metric) -> str:
    """The finding in words: every difference along the axis, with its interval and verdict."""
    of = [line for line in lines if line.metric == metric]
    places = decimals([one.contrast.se for line in of for _, one in line.points if one.contrast])
    texts = [f"{line.axis.name} {plain(x)}: {told(one, places)}" for line in of for x, one in line.points]
    return f"{metric_name(metric, ablation.columns)}, differences along {of[0].axis.name}: {'; '.join(texts)}."
