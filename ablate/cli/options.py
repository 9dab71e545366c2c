"""What several verbs take: each option once, and the study or the cell that is meant by what was given."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ablate.planning.plan import Cell, Plan
    from ablate.planning.project import Project

HERE = Path()

Root = Annotated[
    Path,
    typer.Option("--root", envvar="ABLATE_ROOT", help="Folder that holds runs/ and reports/."),
]

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file.")]

AnyStudy = Annotated[
    Path | None,
    typer.Argument(metavar="[STUDY]", help="A study file, or the name of a study that was run; else the one run last."),
]

AnyPlace = Annotated[
    Path | None,
    typer.Argument(metavar="[STUDY]", help="A study file, or the name of a study that was run; else everything."),
]

CellName = Annotated[str, typer.Argument(metavar="CELL", help="[STUDY:]ABLATION/ROW[@SEED]")]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=v", help="Edit the study file at a dotted path; may be given many times."),
]

Rehearse = Annotated[
    bool,
    typer.Option(
        "--rehearse", help="The whole study at 8 steps a training and 16 questions a task, in runs of its own."
    ),
]

TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Have the name of a study that was run here from another file.")
]

Executors = Annotated[
    list[str] | None,
    typer.Option(
        "--executor",
        metavar="NAME[,NAME..]",
        help="Where stages run: profiles of executors.yaml, or slurm, ray, local. Else here.",
    ),
]

KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Go on however often the same failure comes.")]

Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the run goes on by itself: here, or as a job where stages run.")
]

AsJson = Annotated[bool, typer.Option("--json", help="For a machine: stable and complete.")]


def project_of_file(study: Path, overrides: list[str] | None, rehearse: bool, root: Path) -> "Project":
    """-> the study of a file, for a verb that starts from one. Raises StudyError with every mistake in it."""
    from ablate.planning.project import open_study

    return open_study(study, root, overrides or (), is_rehearsal=rehearse)


def any_project(study: Path | None, overrides: list[str] | None, rehearse: bool, root: Path) -> "Project":
    """-> the study that a verb speaks of; a note is printed where that is not what its file says now."""
    from ablate.planning.project import project_of

    project = project_of(study, root, overrides or (), is_rehearsal=rehearse)
    if project.doubt:
        typer.echo(f"note: {project.doubt}", err=True)
    return project


def cell_named(name: str, root: Path) -> tuple["Plan", "Cell"]:
    """-> the cell, and the plan it belongs to. Raises AblateError for a name that fits no cell, or several."""
    from ablate.planning.project import find_cell

    return find_cell(name, root)
