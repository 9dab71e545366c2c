"""The forest plot of scores: dots with 95 % intervals, one panel a metric, the control as a line through all rows."""

import math
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.formatting import decimals, number, short, with_error
from ablate.report.metric_names import metric_name
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.question_scores import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Z = 1.96
MOST_ROOM = 2.0
"""Times the axis that the students need: so far a teacher widens it, and is a number at its edge otherwise."""


@EXHIBITS.register("scores", order=100)
def scores_forest(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-scores.png and .svg, and the panels of the page."""
    if not ablation.columns:
        return None
    name = f"{ablation.name}-scores"
    return figure(
        name,
        partial(_picture, ablation),
        numbered(name, ablation.columns, partial(_panel, ablation), partial(_alt, ablation)),
        title=f"Scores: {ablation.title}",
        caption=caption(ablation),
        is_wide=True,
        fold="Every score as a picture",
    )


def caption(ablation: AblationResult) -> str:
    """-> what bars, dots and the dashed line mean."""
    is_seeded = any(len(row.done) > 1 for row in ablation.rows)
    seeds = (
        "Small dots: single seeds; large: their mean." if is_seeded else "One seed: no bar holds the noise of training."
    )
    return (
        f"Bars: ±1.96 standard errors over questions. {seeds} Dashed line: the control. "
        "Bars of two rows may overlap although their paired difference is clear: see the table."
    )


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
    lines = max(wrapped(row.row.label).count("\n") for row in ablation.rows) + 1
    return 0.85 + (0.3 if lines == 1 else 0.42) * len(ablation.rows)


def wrapped(label: str) -> str:
    """On two lines at most, at a comma or a space where there is one."""
    return "\n".join(textwrap.wrap(short(label, 60), 32, max_lines=2, placeholder="…"))


def _draw(ax: "Axes", ablation: AblationResult, metric: Metric) -> None:
    rows = ablation.rows
    ax.set_title(metric_name(metric, ablation.columns))
    plot_style.name_rows(ax, [wrapped(row.row.label) for row in rows])
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
            ax.axvline(score.value, color=plot_style.MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1)


def _draw_row(ax: "Axes", row: RowResult, metric: Metric, y: int, low: float, high: float) -> None:
    score = row.score(metric)
    if score is None or not math.isfinite(score.value):
        _write(
            ax, 0.02, y, "NaN" if score else "not measured" if row.done else row.cells[0].state, plot_style.PALETTE[1]
        )
    elif score.value > high:
        _write(ax, 0.99, y, f"{number(score.value, 3)} \N{RIGHTWARDS ARROW}", plot_style.MUTED, "right")
    elif score.value < low:
        _write(ax, 0.01, y, f"\N{LEFTWARDS ARROW} {number(score.value, 3)}", plot_style.MUTED)
    else:
        _draw_score(ax, row, metric, score, y)


def _draw_score(ax: "Axes", row: RowResult, metric: Metric, score: Summary, y: int) -> None:
    is_distilled = row.row.model == "distill"
    if score.stderr:
        color = plot_style.row_color(is_distilled=is_distilled)
        ax.plot([score.value - Z * score.stderr, score.value + Z * score.stderr], [y, y], color=color, linewidth=1.4)
    seeds = [cell.scores[metric].value for cell in row.done if metric in cell.scores]
    label = f"{short(row.row.label, 60)} {with_error(score.value, score.stderr, decimals([score.stderr or score.sd]))}"
    plot_style.draw_dots(ax, y, score.value, seeds, is_distilled=is_distilled, label=label)


def _write(ax: "Axes", x: float, y: int, text: str, color: str, side: str = "left") -> None:
    """Words in place of a dot: what is not done, or how far off a row is that would squeeze the others."""
    place = ax.get_yaxis_transform()
    ax.text(x, y, text, transform=place, ha=side, va="center", color=color, fontsize=8.5, bbox=plot_style.TEXT_BOX)


def _limits(rows: Sequence[RowResult], metric: Metric) -> tuple[float, float]:
    """Around all rows, unless that would squeeze the students and their bars: then around those."""
    students = [row for row in rows if not row.row.model.startswith("teacher/")]
    near = _with_room(_ends(students, metric) or _ends(rows, metric) or [0.0, 1.0])
    whole = _with_room(_ends(rows, metric) or [0.0, 1.0])
    if whole[1] - whole[0] <= MOST_ROOM * (near[1] - near[0]):
        return whole
    inside = [row for row in rows if (score := row.score(metric)) and near[0] <= score.value <= near[1]]
    return _with_room(_ends(students, metric) + _ends(inside, metric))


def _with_room(ends: Sequence[float]) -> tuple[float, float]:
    room = 0.06 * (max(ends) - min(ends)) or 0.02
    return min(ends) - room, max(ends) + room


def _ends(rows: Sequence[RowResult], metric: Metric) -> list[float]:
    """Of the bars, and the single seeds."""
    ends = [cell.scores[metric].value for row in rows for cell in row.done if metric in cell.scores]
    for score in (row.score(metric) for row in rows):
        if score and score.stderr:
            ends += [score.value - Z * score.stderr, score.value + Z * score.stderr]
    return [end for end in ends if math.isfinite(end)]


def _alt(ablation: AblationResult, metric: Metric) -> str:
    """The scores in words, each with its error."""
    scores = {row.row.label: row.score(metric) for row in ablation.rows}
    places = decimals([score.stderr or score.sd for score in scores.values() if score])
    texts = [
        f"{short(label, 40)} " + (with_error(score.value, score.stderr, places) if score else "no score")
        for label, score in scores.items()
    ]
    return f"{metric_name(metric, ablation.columns)}: {', '.join(texts)}."
