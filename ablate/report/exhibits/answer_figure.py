"""The figure beside an ablation's answer: what its question asks, and each row against the control, by the metric that
decides.
"""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ablate.report import plot_style, verdict_looks
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.differences_along import draw_along, lines_of
from ablate.report.exhibits.differences_forest import draw_differences, draw_interval, finding_text
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.heat_map import Sheet, alt, draw_grid, sheets_of
from ablate.report.formatting import decimals, pair_suffix
from ablate.report.labels import on_lines
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share, shown
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.results.effects import Effect, effects_of
from ablate.results.verdicts import findings_of
from ablate.study.names import short_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, LABEL, LINE = 4.5, 26, 60
"""Of a panel in inches, of a label's line and of the line below in letters."""
TALLEST = 5.6
"""Inches of what stands beside effects; more rows stand in the figure of all differences."""
MOST_CELLS = 6
"""Columns of a grid that its panel has room for; a wider grid is a figure of its own below."""


class Part:
    """One panel: how high it is, how it is drawn, what it says."""

    def __init__(self, height: float, draw: "Callable[[Axes], None]", alt: str) -> None:
        self.height, self.draw, self.alt = height, draw, alt

    def figure(self) -> "Figure":
        picture, (ax,) = plot_style.panels(1, WIDTH, self.height)
        self.draw(ax)
        return picture


@EXHIBITS.register("answer", order=3)
def answer_figure(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-answer.png and .svg; None before anything is compared by the metric that decides."""
    metric = ablation.primary
    parts = [part for part in (_effects(results, ablation), _rows(results, ablation)) if part] if metric else []
    if metric is None or not parts:
        return None
    if len(parts) > 1 and parts[1].height > TALLEST:
        parts.pop()
    name = f"{ablation.name}-answer"
    name_of_metric = metric_name(metric, ablation.columns)
    differences = axis_label(metric, name_of_metric, is_difference=True)
    panels = [Panel(f"{name}-{number}", part.figure, part.alt) for number, part in enumerate(parts)]
    return figure(
        name,
        partial(_picture, parts, differences),
        panels,
        title=f"{name_of_metric}: {ablation.title}",
        caption=say("figures.answer", metric=differences),
        is_wide=True,
        paper=panels,
    )


def _picture(parts: Sequence[Part], differences: str) -> "Figure":
    """One above the other: labels of each have their own width. `differences`: what all of them show."""
    from matplotlib.figure import Figure

    heights = [part.height for part in parts]
    picture = Figure(figsize=(WIDTH + 1.0, sum(heights)))
    axes = picture.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, ax in zip(parts, axes, strict=True):
        part.draw(ax)
    picture.supxlabel(textwrap.fill(differences, LINE), fontsize=9, color=plot_style.MUTED)
    return picture


def _rows(results: Results, ablation: AblationResult) -> Part | None:
    """-> the rows against the control: as a grid of two settings, along an axis of numbers, else line by line."""
    metric, delta = ablation.primary, results.study.report.delta
    assert metric
    findings = findings_of(results, ablation)
    compared = [finding for finding in findings.all if finding.metric == metric]
    if not any(finding.contrast for finding in compared):
        return None
    title = say("figures.differences")
    sheets = [sheet for sheet in sheets_of(results, ablation) if sheet.metric == metric]
    if len(sheets) == 1 and len(sheets[0].grid.values[0]) <= MOST_CELLS:
        height = 0.95 + 0.6 * len(sheets[0].grid.values[1])
        return Part(height, _titled(partial(_draw_grid, sheets[0]), title), alt(sheets[0]))
    places = decimals([finding.contrast.se for finding in compared if finding.contrast])
    texts = ", ".join(finding_text(finding, places) for finding in compared)
    lines = [line for line in lines_of(results, ablation) if line.metric == metric]
    if len(lines) == 1:
        draw = partial(draw_along, ablation=ablation, lines=lines, metric=metric, delta=delta)
        return Part(2.9, _titled(draw, title), f"{title}: {texts}.")
    forest = partial(draw_differences, findings=findings, ablation=ablation, metric=metric, delta=delta, width=LABEL)
    num = len(compared) + sum(ruler.metric == metric for ruler in findings.rulers)
    return Part(0.85 + 0.34 * num, _titled(forest, title), f"{title}: {texts}.")


def _draw_grid(sheet: Sheet, ax: "Axes") -> None:
    draw_grid(ax, sheet)


def _titled(draw: "Callable[[Axes], None]", title: str) -> "Callable[[Axes], None]":
    def drawn(ax: "Axes") -> None:
        draw(ax)
        ax.set_title(title)

    return drawn


def _effects(results: Results, ablation: AblationResult) -> Part | None:
    """-> the ablation's own contrasts, line by line."""
    metric, delta = ablation.primary, results.study.report.delta
    effects = [effect for effect in effects_of(results, ablation) if effect.metric == metric]
    if metric is None or not effects:
        return None
    pairs = [effect.pair for effect in effects]
    names = [effect_name(effect) + pair_suffix(effect.pair, pairs) for effect in effects]
    title = say("figures.question")
    texts = ", ".join(_effect_text(effect, name) for effect, name in zip(effects, names, strict=True))
    draw = partial(_draw_effects, effects=effects, names=names, delta=delta, title=title)
    return Part(0.75 + 0.4 * len(effects), draw, f"{title}: {texts}.")


def _draw_effects(ax: "Axes", effects: Sequence[Effect], names: Sequence[str], delta: float, title: str) -> None:
    ax.set_title(title)
    if is_share(effects[0].metric):
        plot_style.show_share(ax.xaxis)
    plot_style.name_rows(ax, on_lines(names, LABEL))
    ax.axvspan(-delta, delta, color=plot_style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=plot_style.MUTED, linewidth=1, zorder=1)
    ends = [(effect.low, effect.high) for effect in effects]
    ax.set_xlim(*plot_style.limits([(0.0, -delta, delta), [effect.contrast.value for effect in effects]], ends))
    ax.locator_params(axis="x", nbins=5)
    for y, (effect, name) in enumerate(zip(effects, names, strict=True)):
        look = verdict_looks.look(effect)
        draw_interval(ax, effect.low, effect.high, y, look["color"])
        ax.plot(effect.contrast.value, y, zorder=3, label=_effect_text(effect, name), **look)


def effect_name(effect: Effect) -> str:
    """`teacher: finetuned against baseline`."""
    axis = " and ".join(short_paths(effect.axis)[path] for path in effect.axis)
    return say(f"effects.{effect.kind}", axis=axis, plus=effect.plus, minus=effect.minus)


def _effect_text(effect: Effect, name: str) -> str:
    """`teacher: finetuned against baseline +16.2 (+1.3 to +31.2), ahead`."""
    level, low, high = effect.deciding
    places = decimals([effect.contrast.se])
    value, *ends = (shown(effect.metric, one, places, is_signed=True) for one in (effect.contrast.value, low, high))
    level_text = "" if level == "95 %" else f"{level} "
    return f"{name} {value} ({level_text}{' to '.join(ends)}), {verdict_looks.words(effect)}"
