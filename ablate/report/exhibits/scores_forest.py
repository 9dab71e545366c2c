"""The forest plot of scores: dots with 95 % intervals, one panel a metric, the control as a line through all rows."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.formatting import decimals, noise
from ablate.report.labels import on_lines, one_line
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share, shown
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.row_intervals import RowInterval, interval_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL = 32
MOST_ROOM = 2.0
"""Times the axis that the students need: so far a teacher widens it, and is a number at its edge otherwise."""


@EXHIBITS.register("scores", order=100)
def scores_forest(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-scores.png and .svg, and the panels of the page."""
    if not ablation.columns:
        return None
    name = f"{ablation.name}-scores"
    panels = numbered(name, ablation.columns, partial(_panel, ablation), partial(_alt, ablation))
    return figure(
        name,
        partial(_picture, ablation),
        panels,
        title=f"Scores: {ablation.title}",
        caption=caption(ablation),
        is_wide=True,
        paper=panels[:1],
        fold="Every score as a picture",
    )


def caption(ablation: AblationResult) -> str:
    """-> what bars, dots and the line mean, and which noise the bars hold."""
    scored = [(row, one) for row in ablation.rows for metric in ablation.columns if (one := interval_of(row, metric))]
    of_questions = dict.fromkeys(
        one_line(row.row.label) for row, one in scored if row.is_trained and not one.has_seed_noise
    )
    has_seeds = any(len(one.seeds) > 1 for _, one in scored)
    sources = noise(has_seeds=has_seeds, exceptions=of_questions if has_seeds else ())
    seeds = [say("figures.seed_dots")] if has_seeds else []
    return " ".join([say("figures.scores", noise=sources), *seeds, say("figures.overlap")])


def _picture(ablation: AblationResult) -> "Figure":
    figure, axes = plot_style.panels(len(ablation.columns), 3.0, _height(ablation), sharey=True)
    figure.set_figwidth(3.0 * len(ablation.columns) + 2.0)
    for ax, metric in zip(axes, ablation.columns, strict=True):
        _draw(ax, ablation, metric)
    return figure


def _panel(ablation: AblationResult, metric: Metric) -> "Figure":
    figure, axes = plot_style.panels(1, 5.2, _height(ablation))
    _draw(axes[0], ablation, metric)
    return figure


def _height(ablation: AblationResult) -> float:
    lines = max(label.count("\n") for label in _labels(ablation)) + 1
    return 0.85 + (0.3 if lines == 1 else 0.42) * len(ablation.rows)


def _labels(ablation: AblationResult) -> list[str]:
    return on_lines([row.row.label for row in ablation.rows], LABEL)


def _draw(ax: "Axes", ablation: AblationResult, metric: Metric) -> None:
    rows = ablation.rows
    ax.set_title(axis_label(metric, metric_name(metric, ablation.columns)))
    if is_share(metric):
        plot_style.show_share(ax.xaxis)
    plot_style.name_rows(ax, _labels(ablation))
    _draw_controls(ax, ablation, metric)
    low, high = _limits(rows, metric)
    ax.set_xlim(low, high)
    ax.locator_params(axis="x", nbins=6, prune="both")
    for y, row in enumerate(rows):
        _draw_row(ax, row, metric, y, low, high)


def _draw_controls(ax: "Axes", ablation: AblationResult, metric: Metric) -> None:
    for control in ablation.controls:
        score = control.score(metric)
        if score:
            ax.axvline(score.value, color=plot_style.MUTED, linewidth=1, zorder=1)


def _draw_row(ax: "Axes", row: RowResult, metric: Metric, y: int, low: float, high: float) -> None:
    score = interval_of(row, metric)
    if score is None or not math.isfinite(score.value):
        _write(
            ax, 0.02, y, "NaN" if score else "not measured" if row.done else row.cells[0].state, plot_style.PALETTE[1]
        )
    elif score.value > high:
        _write(ax, 0.99, y, f"{shown(metric, score.value, 3)} \N{RIGHTWARDS ARROW}", plot_style.MUTED, "right")
    elif score.value < low:
        _write(ax, 0.01, y, f"\N{LEFTWARDS ARROW} {shown(metric, score.value, 3)}", plot_style.MUTED)
    else:
        _draw_score(ax, row, metric, score, y)


def _draw_score(ax: "Axes", row: RowResult, metric: Metric, score: RowInterval, y: int) -> None:
    is_distilled = row.row.model == "distill"
    if math.isfinite(score.low):
        color = plot_style.row_color(is_distilled=is_distilled)
        ax.plot([score.low, score.high], [y, y], color=color, linewidth=1.5)
    label = f"{one_line(row.row.label)} {score_text(metric, score, decimals([score.error]))}"
    plot_style.draw_dots(ax, y, score.value, score.seeds, is_distilled=is_distilled, label=label)


def score_text(metric: Metric, score: RowInterval, places: int) -> str:
    """`77.1 (69.1 to 85.1)`, or in the metric's own unit; the score alone where no error is known."""
    if not math.isfinite(score.low):
        return shown(metric, score.value, places)
    value, low, high = (shown(metric, one, places) for one in score[:3])
    return f"{value} ({low} to {high})"


def _write(ax: "Axes", x: float, y: int, text: str, color: str, side: str = "left") -> None:
    """Words in place of a dot: what is not done, or how far off a row is that would squeeze the others."""
    place = ax.get_yaxis_transform()
    ax.text(x, y, text, transform=place, ha=side, va="center", color=color, fontsize=8.5, bbox=plot_style.TEXT_BOX)


def _limits(rows: Sequence[RowResult], metric: Metric) -> tuple[float, float]:
    """Around all rows, unless that would squeeze the students and their bars: then around those."""
    students = [row for row in rows if not row.row.model.startswith("teacher/")]
    near, whole = _around(students or rows, metric), _around(rows, metric)
    return whole if whole[1] - whole[0] <= MOST_ROOM * (near[1] - near[0]) else near


def _around(rows: Sequence[RowResult], metric: Metric) -> tuple[float, float]:
    """-> limits that hold all scores of some rows, and their bars as far as there is room."""
    scores = [score for row in rows if (score := interval_of(row, metric)) and math.isfinite(score.value)]
    if not scores:
        return 0.0, 1.0
    return plot_style.limits([(score.value, *score.seeds) for score in scores], [score[1:3] for score in scores])


def _alt(ablation: AblationResult, metric: Metric) -> str:
    """The scores in words, each with its interval."""
    scores = {row.row.label: interval_of(row, metric) for row in ablation.rows}
    places = decimals([score.error for score in scores.values() if score])
    texts = [
        f"{one_line(label)} {score_text(metric, score, places) if score else 'no score'}"
        for label, score in scores.items()
    ]
    return f"{metric_name(metric, ablation.columns)}: {', '.join(texts)}."
