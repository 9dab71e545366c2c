"""What the verbs share: options, and the study or cell that a command names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ablate.planning.project import Project


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

HERE = Path()

AsJson = Annotated[bool, typer.Option("--json", help="For a machine: stable and complete.")]


def opened_project(study: Path | None, root: Path, overrides: list[str] | None, *, is_rehearsal: bool) -> "Project":
    """-> the study that a verb speaks of; where that is not what its file says now, a reader is told."""
    from ablate.planning.project import project_of

    project = project_of(study, root, overrides or (), is_rehearsal=is_rehearsal)
    if project.doubt:
        typer.echo(f"note: {project.doubt}", err=True)
    return project


def cell_of(cell: str, root: Path) -> tuple[Any, Any]:
    from ablate.planning.project import find_cell

    return find_cell(cell, root)
