"""Verbs about what came of a study: report, export, diff."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import HERE, Rehearse, Root, Set, cell_of, opened_project
from ablate.core.errors import AblateError

if TYPE_CHECKING:
    from ablate.planning.plan import Plan


def report(
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="A study file, or the name of a study that was run; else the one run last. Several: a report of each,"
            " and one of all in one page.",
        ),
    ] = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="ROOT", help="Hold it against the same study as it was run in another root."),
    ] = None,
    root: Root = HERE,
) -> None:
    """Write the report of a study, or of several, at any time, also half-way."""
    from ablate.report.write import write_report

    if compare and len(studies or ()) > 1:
        raise typer.BadParameter("--compare holds one study against itself in another root: name one study")
    named: list[Path | None] = [*(studies or ())] or [None]
    plans = [opened_project(of, root, overrides, is_rehearsal=rehearse).plan(is_online=False) for of in named]
    there = _elsewhere(plans[0], compare, root) if compare else None
    together = write_report(*plans)
    for plan in plans if len(plans) > 1 else ():
        typer.echo(f"wrote {write_report(plan)}")
    typer.echo(f"wrote {together}")
    if there:
        from ablate.report.write import write_comparison
        from ablate.results.collect import collect

        typer.echo(f"wrote {write_comparison(collect(plans[0]), collect(there), together)}")


def _elsewhere(plan: "Plan", compare: Path, root: Path) -> "Plan":
    """-> the same study as it was run in another root. Raises AblateError when it was not."""
    from ablate.planning.project import reopen_study

    if compare.resolve() == root.resolve():
        raise AblateError(f"--compare {compare} is the root itself: name the folder of another run")
    if not (compare / "runs").is_dir():
        raise AblateError(f"--compare {compare}: there is no runs/ in it")
    return reopen_study(compare, plan.study.name).plan(is_online=False)


def export(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="[STUDY:]ABLATION/ROW[@SEED]")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    root: Root = HERE,
) -> None:
    """Write one cell's model as an ordinary folder that `from_pretrained` and `lm_eval` read."""
    from ablate.export import export_cell

    export_cell(*cell_of(cell, root), folder)
    typer.echo(f"wrote {folder}")


def diff(
    one: Annotated[str, typer.Argument(metavar="KEY")],
    other: Annotated[str, typer.Argument(metavar="KEY")],
    root: Root = HERE,
) -> None:
    """Show in what two stages differ: settings, what was put into them, versions."""
    from ablate.cli.explain_view import print_diff
    from ablate.store.store import Store

    print_diff(Store(root), one, other)
