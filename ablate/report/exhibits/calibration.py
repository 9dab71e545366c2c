"""How far confidence can be trusted: reliability curves, a panel a task, and the table of calibration errors."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece, joined
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.formatting import number, recipe_label
from ablate.report.markup import render
from ablate.report.metric_names import TASKS
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.calibration import Calibration, Calibrations, calibrations_of
from ablate.results.chosen_rows import by_interest
from ablate.results.collect import AblationResult, Results, RowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 4
"""Of a panel: the control, the teacher and the best distilled rows."""
MOST_PANELS = 12
"""Of a study's page; the files have all."""
LEAST_ANSWERS = 10
"""Of a dot."""
PLACES = 3


@EXHIBITS.register("calibration", order=123)
def calibration(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-calibration and tables/<ablation>-calibration.csv in a fold; None without such tasks."""
    known = calibrations_of(results, ablation)
    if not known.all:
        return None
    name = f"{ablation.name}-calibration"
    lines = _drawn(ablation, known.all)
    tasks = list(dict.fromkeys(one.task for one in known.all))
    on_page = tasks[: max(1, MOST_PANELS // len(results.ablations))]
    keys = [(row.row.label, *_svg_key(at)) for at, row in enumerate(lines)]
    drawing = figure(
        name,
        partial(_picture, known.all, lines, tasks),
        [Panel(f"{name}-{n}", partial(_panel, known.all, lines, task), _alt(known.all, lines, task))
         for n, task in enumerate(on_page)],
        title=f"{say('calibration.title')}: {ablation.title}",
        caption=say("calibration.caption"),
        legend=keys,
    )  # fmt: skip
    return replace(joined(drawing, _table(ablation, known)), fold=say("calibration.fold"))


def _drawn(ablation: AblationResult, known: Sequence[Calibration]) -> list[RowResult]:
    """-> the rows that have a line: the control, the teacher, then the best distilled ones."""
    rows = {id(one.row): one.row for one in known}
    teachers = [row for row in rows.values() if row.row.model == "teacher/finetuned"]
    ordered = [row for row in by_interest(ablation) if id(row) in rows]
    first, rest = ordered[:1], ordered[1:]
    return list({id(row): row for row in (*first, *teachers[:1], *rest)}.values())[:MOST_LINES]


def _table(ablation: AblationResult, known: Calibrations) -> Piece:
    file = f"tables/{ablation.name}-calibration.csv"
    notes = [say("calibration.note"), *_left_out(known), say("calibration.file", file=file)]
    values = {
        "title": ablation.title,
        "region": say("calibration.title"),
        "caption": " ".join(_sentences(ablation, known.all)),
        "head": (
            *("Task", "Model", "Seeds", "Questions", "Right", "Sure"),
            *("ECE", "95 % interval", "Equal bins", "By chance", "Brier"),
        ),
        "lines": [_line(one) for one in known.all],
        "note": " ".join(notes),
    }
    files = {file: to_csv(_csv(known.all)).encode()}
    return Piece(render("listing.html", **values), render("listing.md", **values), files)


def _left_out(known: Calibrations) -> Iterator[str]:
    yield from (say("calibration.refused", task=_task(one.task), why=one.why) for one in known.refused)
    if known.num_left_out:
        yield say("calibration.some_rows", num=known.num_left_out)


def _sentences(ablation: AblationResult, known: Sequence[Calibration]) -> Iterator[str]:
    """Of the best distilled row, on its first task."""
    rows = [row for row in by_interest(ablation) if row.row.model == "distill"]
    one = next((one for row in rows for one in known if one.row is row), None)
    if one is None or math.isnan(one.low):
        return
    ends = {"low": number(one.low, PLACES), "high": number(one.high, PLACES), "ece": number(one.ece, PLACES)}
    yield say("calibration.row", row=recipe_label(one.row.row.label), task=_task(one.task), **ends)
    if one.low <= 0:
        yield say("calibration.chance", by_chance=number(one.by_chance, PLACES))
    elif abs(one.confidence - one.accuracy) > one.ece / 2:  # else too sure here, not sure enough there
        yield say("calibration.over" if one.confidence > one.accuracy else "calibration.under")


def _line(one: Calibration) -> tuple[str, ...]:
    shares = (f"{100 * value:.1f}\N{NO-BREAK SPACE}%" for value in (one.accuracy, one.confidence))
    interval = "" if math.isnan(one.low) else f"{number(one.low, PLACES)} to {number(one.high, PLACES)}"
    rest = (number(one.adaptive, PLACES), number(one.by_chance, PLACES))
    brier = "" if math.isnan(one.brier) else number(one.brier, PLACES)
    counts = (f"{one.seeds}", f"{one.num:,}")
    return (_task(one.task), one.row.row.label, *counts, *shares, number(one.ece, PLACES), interval, *rest, brier)


def _csv(known: Sequence[Calibration]) -> Iterator[list[object]]:
    yield [
        *("task", "row", "label", "seeds", "n", "accuracy", "confidence"),
        *("ece", "low", "high", "adaptive", "by_chance", "brier"),
    ]
    for one in known:
        row = one.row.row
        yield [
            *(one.task, row.name, row.label, one.seeds, one.num, one.accuracy, one.confidence),
            *(one.ece, one.low, one.high, one.adaptive, one.by_chance, one.brier),
        ]


def _task(name: str) -> str:
    return TASKS.get(name, name)


def _picture(known: Sequence[Calibration], lines: Sequence[RowResult], tasks: Sequence[str]) -> "Figure":
    figure, axes = plot_style.panels(len(tasks), 3.4, 3.4)
    for ax, task in zip(axes, tasks, strict=True):
        _draw(ax, known, lines, task)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, labelcolor=plot_style.INK)
    return figure


def _panel(known: Sequence[Calibration], lines: Sequence[RowResult], task: str) -> "Figure":
    figure, axes = plot_style.panels(1, 3.6, 3.4)
    _draw(axes[0], known, lines, task)
    return figure


def _draw(ax: "Axes", known: Sequence[Calibration], lines: Sequence[RowResult], task: str) -> None:
    ax.plot([0, 1], [0, 1], color=plot_style.MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    for at, row in enumerate(lines):
        own = (one for one in known if one.row is row and one.task == task)
        bins = [one_bin for one in own for one_bin in one.bins if one_bin.num >= LEAST_ANSWERS]
        xs, ys = [one.confidence for one in bins], [one.accuracy for one in bins]
        ax.plot(xs, ys, **plot_style.line_style(at), marker="o", markersize=3.5, zorder=3, label=row.row.label)
    ax.set_title(_task(task))
    ax.set_xlabel("confidence")
    ax.set_ylabel("share right")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)


def _svg_key(at: int) -> tuple[str, str]:
    """-> colour and dashes of a line, as the page's legend writes them."""
    style = plot_style.line_style(at)
    dash = style["linestyle"]
    return plot_style.VARIABLES[style["color"]], "" if dash == "-" else " ".join(map(str, dash[1]))


def _alt(known: Sequence[Calibration], lines: Sequence[RowResult], task: str) -> str:
    """The finding in words: every line's error."""
    texts = [
        f"{one.row.row.label} {number(one.ece, PLACES)}"
        for row in lines
        for one in known
        if one.row is row and one.task == task
    ]
    return f"Expected calibration error on {_task(task)}: {', '.join(texts)}."
