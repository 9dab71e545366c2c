"""The forest plot: each distilled row's difference to the control with its adjusted interval, one panel a metric."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablate.exhibits import drawing
from ablate.exhibits.base import EXHIBITS, Piece
from ablate.exhibits.forest import wrapped
from ablate.exhibits.words import decimals, metric_name, number, render, short
from ablate.scores import AblationResult, Metric, Results
from ablate.verdicts import Finding, Findings, Ruler, Verdict, findings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAR: tuple[Verdict, ...] = ("better", "worse", "equivalent")
ROOM = 0.08


@EXHIBITS.register("2-differences")
def differences(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-differences.png and .svg, and the panels of the page."""
    found, delta = findings_of(results, ablation), results.study.report.delta
    metrics = [metric for metric in ablation.columns if any(one.metric == metric and one.contrast for one in found.all)]
    if not metrics:
        return None
    name = f"{ablation.name}-differences"
    with drawing.drawing():
        files = drawing.files(_picture(found, ablation, metrics, delta), name)
        drawn = [_svg(found, ablation, of, delta, f"{name}-{number}") for number, of in enumerate(metrics)]
    values = {
        "title": f"Differences: {ablation.title}",
        "is_wide": True,
        "panels": drawn,
        "legend": [],
        "caption": caption(found, delta),
        "alt": " ".join(_alt(found, ablation, metric) for metric in metrics),
        "file": f"figures/{name}.png",
    }
    return Piece(render("figure.html", **values), render("figure.md", **values), files)


def caption(found: Findings, delta: float) -> str:
    noise = "questions and training seeds" if found.has_seed_noise else "questions only"
    ruler = " With end marks: the control against itself under other seeds." if found.rulers else ""
    return (
        f"Difference to the control; bars: intervals that hold together with 95 %, of {noise}. Filled: told from no"
        f" difference after correction, or equivalent; grey: suggestive; hollow: inconclusive. Band: ±{delta:g}.{ruler}"
    )


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


def _svg(found: Findings, ablation: AblationResult, metric: Metric, delta: float, name: str) -> str:
    figure, axes = drawing.panels(1, 5.2, _height(len(_of(found, metric))))
    _draw(axes[0], found, ablation, metric, delta)
    return drawing.svg(figure, name, _alt(found, ablation, metric))


def _height(num_rows: int) -> float:
    return 0.95 + 0.34 * num_rows


def _draw(ax: "Axes", found: Findings, ablation: AblationResult, metric: Metric, delta: float) -> None:
    rows = _of(found, metric)
    ax.set_title(f"{metric_name(metric, ablation.columns)}: difference")
    ax.set_yticks(range(len(rows)), [wrapped(one.row.row.label) for one in rows], linespacing=1.05)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.axvspan(-delta, delta, color=drawing.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=drawing.MUTED, linewidth=1, zorder=1)
    told = [end for one in rows if one.contrast for end in (one.contrast.value, one.low, one.high)]
    ends = [-delta, delta, *(end for end in told if math.isfinite(end))]  # one question has no interval
    room = ROOM * (max(ends) - min(ends))
    ax.set_xlim(min(ends) - room, max(ends) + room)
    ax.locator_params(axis="x", nbins=5)
    for y, one in enumerate(rows):
        _draw_row(ax, one, y)


def _draw_row(ax: "Axes", one: Finding | Ruler, y: int) -> None:
    if isinstance(one, Ruler):
        ends = [end for end in (one.low, one.contrast.value, one.high) if math.isfinite(end)]
        ax.plot(ends, [y] * len(ends), color=drawing.MUTED, linewidth=1.4, marker="|", markersize=9)
        return
    if one.contrast is None:
        place = ax.get_yaxis_transform()
        told = short(f"{one.verdict}: {one.why}", 40)
        ax.text(0.02, y, told, transform=place, va="center", color=drawing.PALETTE[1], fontsize=8.5)
        return
    color = drawing.PALETTE[0]
    if math.isfinite(one.low):
        ax.plot([one.low, one.high], [y, y], color=color, linewidth=1.4)
    ax.plot(one.contrast.value, y, marker="o", markersize=6.5, color=color, zorder=3, **face(one.verdict, color))


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
    word = "no row of the comparison" if isinstance(one, Ruler) else one.verdict
    if one.contrast is None:
        return f"{label} {word}"
    value, low, high = (number(x, places, is_signed=True) for x in (one.contrast.value, one.low, one.high))
    return f"{label} {value} ({low} to {high}), {word}"
