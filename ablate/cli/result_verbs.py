"""Verbs about what came of a study: report, export, diff."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import HERE, CellName, Rehearse, Root, Set, any_project, cell_named
from ablate.core.errors import AblateError

if TYPE_CHECKING:
    from ablate.planning.plan import Plan


Studies = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[STUDY]...",
        help="A study file, or the name of a study that was run; else the one run last. Several: a report of each,"
        " and one of all in one page.",
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option("--compare", metavar="ROOT", help="Hold it against the same study as it was run in another root."),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="html,md,tex,ipynb",
        help="What to write it in; what was asked for last stays, at first html,md.",
    ),
]
Style = Annotated[
    str | None,
    typer.Option(
        "--style",
        metavar="paper",
        help="paper: figures as wide as a column too, as PDF, SVG and PGF in paper/; screen: no longer.",
    ),
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show it in a browser on this machine, and draw it again as the study goes on.")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="N", min=1, max=65535, help="Of --watch; the first free one from 8642 on, unless given."
    ),
]


def report(
    studies: Studies = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    compare: Compare = None,
    formats: Formats = None,
    style: Style = None,
    is_watched: Watch = False,
    port: Port = None,
    root: Root = HERE,
) -> None:
    """Write the report of a study, or of several, at any time, also half-way."""
    from ablate.report.formats import formats_named
    from ablate.report.styles import style_named
    from ablate.run import write_comparison, write_reports

    asked = None if formats is None else formats_named(formats), None if style is None else style_named(style)
    _check_options(studies, compare, is_watched, port)

    def plans_now() -> "list[Plan]":
        named: list[Path | None] = [*(studies or [])] or [None]
        return [any_project(study, overrides, rehearse, root).plan(is_online=False) for study in named]

    if is_watched:
        _watch(lambda: write_reports(plans_now(), *asked)[-1], port)
        return
    plans = plans_now()
    there = _as_run_in(compare, root, plans[0].study.name) if compare else None
    folders = write_reports(plans, *asked)
    for folder in folders:
        typer.echo(f"wrote {folder}")
    if there:
        typer.echo(f"wrote {write_comparison(plans[0], there, folders[-1])}")


def _check_options(studies: list[Path] | None, compare: Path | None, is_watched: bool, port: int | None) -> None:
    """Raises BadParameter for what does not go together."""
    if compare and len(studies or ()) > 1:
        raise typer.BadParameter("--compare holds one study against itself in another root: name one study")
    if compare and is_watched:
        raise typer.BadParameter("--compare is written once: leave out --watch")
    if port and not is_watched:
        raise typer.BadParameter("--port is where --watch shows the report: add --watch")


def _watch(draw: Callable[[], Path], port: int | None) -> None:
    from ablate.report.watched_report import watch

    watch(draw, port, typer.echo)


def _as_run_in(compare: Path, root: Path, name: str) -> "Plan":
    """-> a study as it was run in another root. Raises AblateError when it was not."""
    from ablate.planning.project import reopen_study

    if compare.resolve() == root.resolve():
        raise AblateError(f"--compare {compare} is the root itself: name the folder of another run")
    if not (compare / "runs").is_dir():
        raise AblateError(f"--compare {compare}: there is no runs/ in it")
    return reopen_study(compare, name).plan(is_online=False)


def export(
    cell: CellName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    root: Root = HERE,
) -> None:
    """Write one cell's model as an ordinary folder that `from_pretrained` and `lm_eval` read."""
    from ablate.export import export_cell

    export_cell(*cell_named(cell, root), folder)
    typer.echo(f"wrote {folder}")


def diff(
    one: Annotated[str, typer.Argument(metavar="KEY")],
    other: Annotated[str, typer.Argument(metavar="KEY")],
    root: Root = HERE,
) -> None:
    """Show in what two stages differ: settings, what was put into them, versions."""
    from ablate.cli.diff_view import print_diff
    from ablate.store.store import Store

    print_diff(Store(root), one, other)
