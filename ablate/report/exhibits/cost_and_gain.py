"""Cost against gain: what each row cost, alone and with what it shares, beside its score on the metric that decides."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.core.text import duration
from ablate.report import plot_style
from ablate.report.exhibits.base import OVERVIEWS, Piece, joined
from ablate.report.exhibits.cost_points import Point, points_of
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.exhibits.front_groups import primary_of
from ablate.report.exhibits.scores_forest import score_text
from ablate.report.formatting import decimals, listed, plural
from ablate.report.labels import shortened
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share, shown
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import Metric, Results
from ablate.results.stage_times import seconds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.67, 3.9
"""In inches."""
LABEL = 38
MOST_LABELS = 14
LOG_FROM = 20.0
"""Costs that differ by more than this factor stand on a logarithmic axis."""


@OVERVIEWS.register("cost-and-gain", order=8)
def cost_and_gain(results: Results) -> Piece | None:
    """-> figures/cost-and-gain.png and .svg, a folded table, tables/cost-and-gain.csv; None of fewer than two rows."""
    metric = primary_of(results)
    points, is_timed = points_of(results, metric) if metric else ([], True)
    if metric is None or len(points) < 2:
        return None
    name = metric_name(metric, next(one.columns for one in results.ablations if metric in one.columns))
    file, draw = f"{results.prefix}cost-and-gain", partial(_picture, points, metric, name, is_timed)
    panels = [Panel(file, draw, _alt(points, metric, name, is_timed))]
    drawn = figure(
        file,
        draw,
        panels,
        title=say("pareto.title"),
        caption=" ".join([say("pareto.caption"), *_saved(results)]),
        is_wide=True,
        paper=panels,
    )
    return joined(drawn, _table(results, points, metric, name, is_timed), fold="What each row cost, and what it gained")


def _saved(results: Results) -> Iterator[str]:
    """-> what sharing between the tables spared, by the same sums as the table of costs."""
    seconds = seconds_of(results)
    here = sum(seconds.get(stage.key, 0.0) for stage in results.plan.all_stages)
    by_hand = sum(seconds.get(stage.key, 0.0) for alone in results.plan.alone for stage in alone.stages)
    if by_hand > here:
        yield say("pareto.saved", saved=duration(by_hand - here), by_hand=duration(by_hand))


def _alt(points: Sequence[Point], metric: Metric, name: str, is_timed: bool) -> str:
    """The finding in words: the rows that no other one beats in both."""
    front = [point for point in points if point.is_front]
    places = _places(points)
    texts = [
        f"{point.label} {shown(metric, point.score.value, places)}, {_cost_text(point.whole, is_timed)}"
        for point in front
    ]
    return say("pareto.alt", metric=name, rows=plural(len(points), "row"), front=listed(texts))


def _cost_text(cost: float, is_timed: bool) -> str:
    return duration(cost) if is_timed else f"{cost:.2g} FLOPs"


def _places(points: Sequence[Point]) -> int:
    return decimals([point.score.error for point in points])


def _unit(points: Sequence[Point], is_timed: bool) -> tuple[float, str]:
    """-> how much of a cost is one on the axis, and what the axis says."""
    if not is_timed:
        return 1.0, say("pareto.flops")
    most = max(point.whole for point in points)
    scale, unit = (3600.0, "hours") if most > 5400 else (60.0, "minutes") if most > 90 else (1.0, "seconds")
    device = next(iter(points[0].cost.devices), "")
    return scale, say("pareto.time", unit=unit, device=device or "one device")


def _picture(points: Sequence[Point], metric: Metric, name: str, is_timed: bool) -> "Figure":
    figure, (ax,) = plot_style.panels(1, WIDTH, HEIGHT)
    scale, words = _unit(points, is_timed)
    for point in points:
        _draw(ax, point, metric, scale, _places(points))
    ax.set_xlabel(words)
    ax.set_ylabel(axis_label(metric, name))
    if is_share(metric):
        plot_style.show_share(ax.yaxis)
    spent = [value / scale for point in points for value in (point.own or point.whole, point.whole)]
    ends = [(point.score.value, *point.score.seeds) for point in points], [point.score[1:3] for point in points]
    ax.set_ylim(*plot_style.limits(*ends))
    if max(spent) > LOG_FROM * min(spent):
        plot_style.log_axis(ax, "x", spent)
    else:
        room = 0.06 * (max(spent) - min(spent)) or 0.1 * max(spent)
        ax.set_xlim(max(min(spent) - room, 0), max(spent) + room)
    _label(ax, _named(points), scale)
    return figure


def _draw(ax: "Axes", point: Point, metric: Metric, scale: float, places: int) -> None:
    is_distilled = point.row.row.model == "distill"
    color = plot_style.row_color(is_distilled=is_distilled)
    x, y = point.whole / scale, point.score.value
    ax.plot([x, x], [point.score.low, point.score.high], color=color, linewidth=0.9, alpha=0.55, zorder=1)
    if point.shared and point.own:
        ax.plot([point.own / scale, x], [y, y], color=color, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1)
        ax.plot(point.own / scale, y, marker="|", markersize=6, color=color, zorder=2)
    text = f"{point.label} {score_text(metric, point.score, places)}"
    look: dict[str, Any] = {"marker": "o" if is_distilled else "s", "markersize": 7 if point.is_front else 4.5}
    ax.plot(
        x, y, color=color, markerfacecolor=color if point.is_front else plot_style.PAPER, zorder=3, label=text, **look
    )


def _named(points: Sequence[Point]) -> list[Point]:
    """-> those that get a label: all of a few, else the front alone."""
    return list(points) if len(points) <= MOST_LABELS else [point for point in points if point.is_front]


def _label(ax: "Axes", points: Sequence[Point], scale: float) -> None:
    """Names at the right edge, each with a line to its dot."""
    low, high = ax.get_ylim()
    gap = 0.058 * (high - low)
    heights = plot_style.spread([point.score.value for point in points], gap, low + gap / 2, high - gap / 2)
    across = ax.get_yaxis_transform()
    names = shortened([point.label for point in points], LABEL)
    for point, height, name in zip(points, heights, names, strict=True):
        place = (point.whole / scale, point.score.value)
        arrow: dict[str, Any] = {"arrowstyle": "-", "color": plot_style.MUTED, "linewidth": 0.4, "relpos": (0, 0.5)}
        arrow |= {"shrinkA": 1, "shrinkB": 4}
        weight = "bold" if point.is_front else "normal"
        look: dict[str, Any] = {"va": "center", "fontsize": 8, "weight": weight, "annotation_clip": False}
        ax.annotate(name, place, (1.03, height), textcoords=across, arrowprops=arrow, **look)


def _table(results: Results, points: Sequence[Point], metric: Metric, name: str, is_timed: bool) -> Piece:
    places = _places(points)
    words = [say(f"pareto.{one}") for one in ("own", "shared", "tokens")]
    return folded_table(
        title=say("pareto.title"),
        summary=say("pareto.summary", rows=plural(len(points), "row")),
        region=say("pareto.title"),
        caption=say("pareto.table"),
        head=("Ablation", "Model", *words, axis_label(metric, name), say("pareto.front")),
        lines=[_line(results, point, metric, places, is_timed) for point in points],
        note=say("pareto.note"),
        files={f"tables/{results.prefix}cost-and-gain.csv": to_csv(_exact(points, "seconds" if is_timed else "flops"))},
    )


def _line(results: Results, point: Point, metric: Metric, places: int, is_timed: bool) -> tuple[str, ...]:
    return (
        results.study.ablations[point.row.row.ablation].title or point.row.row.ablation,
        point.row.row.label,
        _cost_text(point.own, is_timed),
        _cost_text(point.shared, is_timed),
        f"{point.cost.tokens:,}",
        score_text(metric, point.score, places),
        "yes" if point.is_front else "no",
    )


def _exact(points: Sequence[Point], unit: str) -> Iterator[tuple[str | float, ...]]:
    yield "ablation", "row", "label", f"own_{unit}", f"shared_{unit}", "tokens", "score", "low", "high", "is_front"
    for point in points:
        row, costs = point.row.row, (point.own, point.shared, point.cost.tokens)
        yield row.ablation, row.name, row.label, *costs, *point.score[:3], "yes" if point.is_front else "no"
