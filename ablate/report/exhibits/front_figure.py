"""The figure of page 1: every ablation by the primary metric, each row beside its control and its teachers."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style, verdict_looks
from ablate.report.exhibits.base import Piece
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.front_groups import Group, Line, Reference, groups_of, primary_of
from ablate.report.exhibits.scores_forest import score_text
from ablate.report.formatting import plural, short
from ablate.report.labels import shortened
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share, shown
from ablate.report.words import say
from ablate.results.collect import Metric, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "all-ablations"
WIDTH, LINE, HEAD, AROUND = 6.67, 0.172, 1.22, 0.95
"""In inches, of the figure, a row and what is above and below; a heading's height in rows."""
LABEL, TITLE = 40, 62
"""Letters."""
COLUMNS = 3
"""Of the legend."""
NAMES = {
    "teacher/baseline": "baseline teacher", "teacher/finetuned": "fine-tuned teacher",
    "student/baseline": "baseline student", "student/finetuned": "fine-tuned student",
}  # fmt: skip
RULES: dict[str, dict[str, Any]] = {
    "control": {"color": plot_style.INK, "linewidth": 1.1, "linestyle": "-"},
    "teacher/baseline": {"color": plot_style.MUTED, "linewidth": 1.1, "linestyle": (0, (1, 1.4))},
    "teacher/finetuned": {"color": plot_style.MUTED, "linewidth": 1.1, "linestyle": (0, (5, 2))},
}
"""How what rows are held against crosses them."""


def front_figure(results: Results) -> Piece | None:
    """-> figures/all-ablations.png and .svg, and the drawing of the page; None before any row has a score."""
    metric = primary_of(results)
    groups = groups_of(results, metric) if metric else []
    if metric is None or not any(line.interval for group in groups for line in group.all):
        return None
    name = metric_name(metric, next(one.columns for one in results.ablations if metric in one.columns))
    draw = partial(_picture, groups, name)
    panels = [Panel(f"{results.prefix}{NAME}", draw, alt(groups, name))]
    return figure(
        f"{results.prefix}{NAME}",
        draw,
        panels,
        title=name,
        caption=_caption(groups, name),
        is_wide=True,
        paper=panels,
    )


def alt(groups: Sequence[Group], name: str) -> str:
    """-> the finding in words: how many rows stand where, then every group's best row beside its control."""
    lines = [line for group in groups for line in group.all]
    counts = {one: sum(verdict_looks.standing(line.finding) == one for line in lines) for one in verdict_looks.LOOKS}
    return " ".join([
        say("front.alt", metric=name, rows=plural(len(lines), "row"), ahead=counts["ahead"], behind=counts["behind"]),
        *(_best_text(group) for group in groups if group.best),
    ])  # fmt: skip


def _best_text(group: Group) -> str:
    assert group.best
    assert group.best.interval
    best, places = score_text(group.metric, group.best.interval, group.num_decimals), group.num_decimals
    control = group.control and f", {_name(group.control)} {shown(group.metric, group.control.value, places)}"
    return f"{group.title}: {group.best.label} {best}{control or ''}."


def _name(reference: Reference) -> str:
    return NAMES.get(reference.row.row.model, reference.row.row.label)


def _caption(groups: Sequence[Group], name: str) -> str:
    has_letters = any(line.letter for group in groups for line in group.lines)
    rest = any(group.more for group in groups)
    return " ".join(
        [
            say("front.caption", metric=name, control=_control(groups)),
            *([say("front.letters")] if has_letters else []),
            *([say("front.more")] if rest else []),
        ]
    )


def _control(groups: Sequence[Group]) -> str:
    """-> ` (fine-tuned student)`, where all have one kind of control."""
    names = {_name(group.control) for group in groups if group.control}
    return f" ({names.pop()})" if len(names) == 1 else ""


def _picture(groups: Sequence[Group], name: str) -> "Figure":
    num = sum(HEAD + group.num_lines for group in groups)
    figure, (ax,) = plot_style.panels(1, WIDTH, AROUND + LINE * num)
    titles = shortened([group.title for group in groups], TITLE)
    places: list[float] = []
    labels: list[str] = []
    top = 0.0
    for group, title in zip(groups, titles, strict=True):
        ax.text(0.012, top + 0.1, title, transform=_page_across(ax), weight="bold", va="center", in_layout=False)
        ys = [top + HEAD - 0.1 + number for number in range(group.num_lines)]
        places += ys
        labels += _labels(group)
        _draw_group(ax, group, ys)
        top += HEAD + group.num_lines
    ax.set_yticks(places, labels)
    ax.tick_params(axis="y", length=0, pad=7)
    ax.set_ylim(top - 0.4, -0.6)
    _frame(ax, groups, name)
    return figure


def _page_across(ax: "Axes") -> Any:
    """-> coordinates: share of the figure's width, line of the panel."""
    from matplotlib.transforms import blended_transform_factory

    return blended_transform_factory(ax.figure.transFigure, ax.transData)


def _labels(group: Group) -> list[str]:
    more = [say("front.rest", number=len(group.more))] if group.more else []
    return [*shortened([line.label for line in group.lines], LABEL), *more]


def _draw_group(ax: "Axes", group: Group, ys: Sequence[float]) -> None:
    for kind, reference in group.references:
        ax.plot([reference.value] * 2, [ys[0] - 0.5, ys[-1] + 0.5], zorder=1, **RULES[kind], solid_capstyle="butt")
    for line, y in zip(group.lines, ys, strict=False):
        _draw_line(ax, line, y, group.metric, group.num_decimals)
    for line in group.more:
        if line.interval:
            look = verdict_looks.look(line.finding) | {"markersize": 3.2, "markeredgewidth": 0.8, "alpha": 0.8}
            text = f"{line.label} {shown(group.metric, line.interval.value, group.num_decimals)}"
            ax.plot(line.interval.value, ys[-1], linestyle="none", label=text, **look)


def _draw_line(ax: "Axes", line: Line, y: float, metric: Metric, places: int) -> None:
    side: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    score = line.interval
    if score is None:
        ax.text(0.01, y, line.why, color=plot_style.PALETTE[1], bbox=plot_style.TEXT_BOX, **side)
        return
    look = verdict_looks.look(line.finding)
    ax.plot([score.low, score.high], [y, y], color=look["color"], linewidth=1.5, zorder=2)
    if len(score.seeds) > 1:
        ax.plot(score.seeds, [y + 0.28] * len(score.seeds), ".", markersize=3, color=plot_style.INK, zorder=3)
    text = f"{line.label} {score_text(metric, score, places)}"
    ax.plot(score.value, y, zorder=4, label=text, **look)
    ax.text(1.01, y, shown(metric, score.value, places), **side)
    ax.text(1.125, y, line.letter, color=plot_style.MUTED, **side)


def _frame(ax: "Axes", groups: Sequence[Group], name: str) -> None:
    ax.set_xlim(*plot_style.limits(*zip(*(group.ends for group in groups), strict=True)))
    ax.locator_params(axis="x", nbins=7)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    if is_share(groups[0].metric):
        plot_style.show_share(ax.xaxis)
    is_falling = any(group.sign < 0 for group in groups)
    ax.set_xlabel(say("front.lower" if is_falling else "front.axis", metric=axis_label(groups[0].metric, name)))
    handles, names = zip(*_in_columns(list(_rules(groups)), list(_marks(groups))), strict=True)
    look: dict[str, Any] = {"handlelength": 2.2, "columnspacing": 1.6, "handletextpad": 0.5, "borderpad": 0.2}
    ax.figure.legend(handles, names, loc="outside upper left", ncols=COLUMNS, fontsize=8.5, **look)


def _in_columns(*parts: Sequence[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """-> the entries of a legend, which fills its columns one by one, so that each part begins a line of its own."""
    from matplotlib.lines import Line2D

    nothing = (Line2D([], [], linestyle="none"), "")
    lines = [entry for part in parts for entry in (*part, *[nothing] * (-len(part) % COLUMNS))]
    return [entry for column in range(COLUMNS) for entry in lines[column::COLUMNS]]


def _rules(groups: Sequence[Group]) -> Iterator[tuple[Any, str]]:
    from matplotlib.lines import Line2D

    for kind, rule in RULES.items():
        names = list(dict.fromkeys(_name(one) for group in groups for known, one in group.references if known == kind))
        if names:
            text = say("front.control", names=" / ".join(names)) if kind == "control" else names[0]
            yield Line2D([], [], **rule), short(text, 44)


def _marks(groups: Sequence[Group]) -> Iterator[tuple[Any, str]]:
    """-> those that there are."""
    from matplotlib.lines import Line2D

    lines = [line for group in groups for line in group.all if line.interval]
    yield from verdict_looks.marks(line.finding for line in lines)
    if any(line.interval and len(line.interval.seeds) > 1 for line in lines):
        yield Line2D([], [], linestyle="none", marker=".", markersize=4, color=plot_style.INK), say("front.seed")
