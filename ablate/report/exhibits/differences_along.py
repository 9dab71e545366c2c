"""The difference to the control along an axis of numbers: points with their intervals, one panel a metric."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ablate.report import plot_style, verdict_looks
from ablate.report.axis_numbers import number_texts
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.differences_forest import finding_text
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.formatting import decimals, plain
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share
from ablate.report.words import say
from ablate.results.aligned_rows import distilled
from ablate.results.axes import Axis, axis_of
from ablate.results.collect import AblationResult, Metric, Results
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
def differences_along(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-along, and the panels of the page; None where rows follow no common axis of numbers."""
    lines = tuple(lines_of(results, ablation))
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
        fold="Every metric along the axis",
    )


def caption(lines: Sequence[Line]) -> str:
    """-> the axis, and what bars and lines mean."""
    scale = say("figures.log") if lines[0].axis.is_log else ""
    return say("figures.along", path=lines[0].axis.path, scale=scale) + " " + say("figures.not_line")


def lines_of(results: Results, ablation: AblationResult) -> Iterator[Line]:
    """-> of each control whose rows stand along one axis of numbers, a line for each metric."""
    findings = findings_of(results, ablation)
    for _, rows in distilled(ablation):
        axis = axis_of(rows)
        for metric in ablation.columns if axis else ():
            assert axis
            known = [(value, findings.find(row, metric)) for value, row in zip(axis.values, rows, strict=True)]
            points = sorted(
                ((x, finding) for x, finding in known if finding and finding.contrast), key=lambda point: point[0]
            )
            if len(points) > 1:
                yield Line(rows[0].row.setting.pair, axis, metric, tuple(points))


def _pairs(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.pair for line in lines))


def _legend(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    pairs = _pairs(lines)
    colors = (plot_style.VARIABLES[plot_style.line_style(number)["color"]] for number in range(len(pairs)))
    return [(pair, color, "none") for pair, color in zip(pairs, colors, strict=True)] if len(pairs) > 1 else []


def _picture(ablation: AblationResult, lines: Sequence[Line], metrics: Sequence[Metric], delta: float) -> "Figure":
    figure, axes = plot_style.panels(len(metrics), 3.3, 2.9)
    for ax, metric in zip(axes, metrics, strict=True):
        draw_along(ax, ablation, lines, metric, delta)
    return figure


def _panel(ablation: AblationResult, lines: Sequence[Line], delta: float, metric: Metric) -> "Figure":
    figure, axes = plot_style.panels(1, 4.4, 3.0)
    draw_along(axes[0], ablation, lines, metric, delta)
    return figure


def draw_along(ax: "Axes", ablation: AblationResult, lines: Sequence[Line], metric: Metric, delta: float) -> None:
    """Every row at its value on the axis."""
    ax.set_title(axis_label(metric, metric_name(metric, ablation.columns), is_difference=True))
    if is_share(metric):
        plot_style.show_share(ax.yaxis)
    ax.set_xlabel(lines[0].axis.name)
    if lines[0].axis.is_log:
        ax.set_xscale("log")
    values = sorted({value for line in lines for value, _ in line.points})
    ticks = values if len(values) <= MOST_TICKS else values[:: math.ceil(len(values) / MOST_TICKS)]
    ax.set_xticks(ticks, number_texts(ticks))
    ax.minorticks_off()
    ax.axhspan(-delta, delta, color=plot_style.GRID, alpha=0.6, linewidth=0)
    ax.axhline(0, color=plot_style.MUTED, linewidth=1, zorder=1)
    pairs = _pairs(lines)
    for line in (line for line in lines if line.metric == metric):
        _draw_line(ax, line, plot_style.line_style(pairs.index(line.pair))["color"] if len(pairs) > 1 else "")
    shown = [finding for line in lines if line.metric == metric for _, finding in line.points]
    ends = [(finding.low, finding.high) for finding in shown]
    ax.set_ylim(*plot_style.limits([(0.0, -delta, delta), [_value(finding) for finding in shown]], ends))


def _draw_line(ax: "Axes", line: Line, color: str) -> None:
    """`color`: of its pair, where there are several."""
    xs, ys = zip(*((x, _value(finding)) for x, finding in line.points), strict=True)
    ax.plot(xs, ys, color=color or plot_style.MUTED, linewidth=0.8, alpha=0.6)
    places = decimals([finding.contrast.se for _, finding in line.points if finding.contrast])
    for x, finding in line.points:
        look = verdict_looks.look(finding)
        if color:
            is_filled = look["markerfacecolor"] != plot_style.PAPER
            look |= {"color": color, "markerfacecolor": color if is_filled else plot_style.PAPER}
        if math.isfinite(finding.low):
            ax.plot([x, x], [finding.low, finding.high], color=look["color"], linewidth=1.5)
        ax.plot(x, _value(finding), zorder=3, label=finding_text(finding, places), **look)


def _value(finding: Finding) -> float:
    return finding.contrast.value if finding.contrast else math.nan


def _alt(ablation: AblationResult, lines: Sequence[Line], metric: Metric) -> str:
    """The finding in words: every difference along the axis, with its interval and verdict."""
    shown = [line for line in lines if line.metric == metric]
    places = decimals([finding.contrast.se for line in shown for _, finding in line.points if finding.contrast])
    texts = [
        f"{line.axis.name} {plain(x)}: {finding_text(finding, places)}" for line in shown for x, finding in line.points
    ]
    return f"{metric_name(metric, ablation.columns)}, differences along {shown[0].axis.name}: {'; '.join(texts)}."
