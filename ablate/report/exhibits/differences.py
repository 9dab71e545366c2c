"""The forest plot: each distilled row's difference to the control with its adjusted interval, one panel a metric."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report.exhibits import drawing
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.exhibits.forest import wrapped
from ablate.report.exhibits.words import decimals, metric_name, noise, number, short
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, Findings, Ruler, Verdict, findings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAR: tuple[Verdict, ...] = ("better", "worse", "equivalent")
ROOM = 0.08


@EXHIBITS.register("differences", order=70)
def differences(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-differences.png and .svg, and the panels of the page."""
    found, delta = findings_of(results, ablation), results.study.report.delta
    metrics = [metric for metric in ablation.columns if any(one.metric == metric and one.contrast for one in found.all)]
    if not metrics:
        return None
    name = f"{ablation.name}-differences"
    return figure(
        name,
        partial(_picture, found, ablation, metrics, delta),
        numbered(name, metrics, partial(_panel, found, ablation, delta), partial(_alt, found, ablation)),
        title=f"Differences: {ablation.title}",
        caption=caption(found, delta),
        is_wide=True,
    )


def caption(found: Findings, delta: float) -> str:
    rows = [short(row.row.label, 40) for row in found.of_questions_only]
    held = noise(has_seeds=found.has_seed_noise, exceptions=rows)
    return (
        f"Difference to the control; bars: intervals that hold together with 95 %, of {held}. Filled: told from no"
        f" difference after correction, or equivalent (a single 90 % interval in the band of ±{delta:g}); grey:"
        f" suggestive; hollow: inconclusive.{_ruler(found)}"
    )


def _ruler(found: Findings) -> str:
    if not found.rulers:
        return ""
    held = noise(has_seeds=all(one.contrast.has_seed_noise for one in found.rulers))
    return f" With end marks: the control against itself under other seeds, at the same level, of {held}; in no family."


def _of(found: Findings, metric: Metric) -> list[Finding | Ruler]:
    """-> the lines of a panel; the rulers first."""
    shown: tuple[Finding | Ruler, ...] = (*found.rulers, *found.all)
    return [one for one in shown if one.metric == metric]


def _picture(found: Findings, ablation: AblationResult, metrics: Sequence[Metric], delta: float) -> "Figure":
    num_rows = max(len(_of(found, metric)) for metric in metrics)
    figure, axes = drawing.panels(len(metrics), 3.0, _height(num_rows), sharey=True)
    figure.set_figwidth(3.0 * len(metrics) + 2.0)
    for ax, metric in zip(axes, metrics, strict=True):
        _draw(ax, found, ablation, metric, delta)
    return figure


def _panel(found: Findings, ablation: AblationResult, delta: float, metric: Metric) -> "Figure":
    figure, axes = drawing.panels(1, 5.2, _height(len(_of(found, metric))))
    _draw(axes[0], found, ablation, metric, delta)
    return figure


def _height(num_rows: int) -> float:
    return 0.95 + 0.34 * num_rows


def _draw(ax: "Axes", found: Findings, ablation: AblationResult, metric: Metric, delta: float) -> None:
    rows = _of(found, metric)
    ax.set_title(f"{metric_name(metric, ablation.columns)}: difference")
    drawing.name_rows(ax, [wrapped(one.row.row.label) for one in rows])
    ax.axvspan(-delta, delta, color=drawing.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=drawing.MUTED, linewidth=1, zorder=1)
    found_ends = [end for one in rows if one.contrast for end in (one.contrast.value, one.low, one.high)]
    ends = [-delta, delta, *(end for end in found_ends if math.isfinite(end))]  # one question has no interval
    room = ROOM * (max(ends) - min(ends))
    ax.set_xlim(min(ends) - room, max(ends) + room)
    ax.locator_params(axis="x", nbins=5)
    for y, one in enumerate(rows):
        _draw_row(ax, one, y)


def _draw_row(ax: "Axes", one: Finding | Ruler, y: int) -> None:
    if one.contrast is None:
        place = ax.get_yaxis_transform()
        why = short(f"not comparable: {one.why}", 40)
        ax.text(0.02, y, why, transform=place, va="center", color=drawing.PALETTE[1], fontsize=8.5)
        return
    color, ends = (drawing.MUTED, "|") if isinstance(one, Ruler) else (drawing.PALETTE[0], "")
    if math.isfinite(one.low):
        ax.plot([one.low, one.high], [y, y], color=color, linewidth=1.4, marker=ends, markersize=9)
    look = {"marker": "|"} if isinstance(one, Ruler) else {"marker": "o", **face(one.verdict, color)}
    label = told(one, decimals([one.contrast.se]))
    ax.plot(one.contrast.value, y, markersize=6.5, color=color, zorder=3, label=label, **look)


def face(verdict: Verdict, color: str) -> dict[str, Any]:
    face = color if verdict in CLEAR else drawing.MUTED if verdict == "suggestive" else drawing.PAPER
    return {"markerfacecolor": face}


def _alt(found: Findings, ablation: AblationResult, metric: Metric) -> str:
    """The finding in words: every difference with its interval and verdict."""
    rows = _of(found, metric)
    places = decimals([one.contrast.se for one in rows if one.contrast])
    return f"{metric_name(metric, ablation.columns)}, differences: {', '.join(told(one, places) for one in rows)}."


def told(one: Finding | Ruler, places: int) -> str:
    label = short(one.row.row.label, 40)
    if one.contrast is None:
        return f"{label} not comparable"
    word = "the control against itself" if isinstance(one, Ruler) else one.verdict
    level, *ends = ("95 %", one.low, one.high) if isinstance(one, Ruler) else one.deciding
    value, low, high = (number(x, places, is_signed=True) for x in (one.contrast.value, *ends))
    return f"{label} {value} ({'' if level == '95 %' else f'{level} '}{low} to {high}), {word}"
