"""Verbs about a run: status, stop, logs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import HERE, AnyStudy, AsJson, Rehearse, Root, Set, opened_project

if TYPE_CHECKING:
    pass


def status(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is over.")] = False,
    root: Root = HERE,
) -> None:
    """Show what is done, running, failed (why) and waiting."""
    from ablate.cli import status_view

    project = opened_project(study, root, overrides, is_rehearsal=rehearse)
    if watch:
        return status_view.watch(lambda: project.plan(is_online=False), as_json=as_json)
    now = status_view.look(project.plan(is_online=False))
    return (
        typer.echo(json.dumps(status_view.status_record(now), indent=1)) if as_json else status_view.print_status(now)
    )


def stop(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    now: Annotated[bool, typer.Option("--now", help="Without a last checkpoint.")] = False,
    root: Root = HERE,
) -> None:
    """End what runs for a study, also what its run left behind; the same command resumes it."""
    from ablate.execution.stop import stop_study

    project = opened_project(study, root, overrides, is_rehearsal=rehearse)
    stopped = stop_study(project.store, project.study.name, is_now=now)
    typer.echo(f"stopped {stopped} stage{'' if stopped == 1 else 's'} of {project.study.name}")


def logs(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[STUDY] STAGE",
            help="STUDY as for the other verbs, else the one run last; STAGE is a key (or how it begins), a stage's"
            " folder or label, or a cell.",
        ),
    ],
    overrides: Set = None,
    rehearse: Rehearse = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the stage ends.")] = False,
    root: Root = HERE,
) -> None:
    """Print the log of a stage's latest attempt."""
    from ablate.cli import log_view

    if len(names) > 2:
        raise typer.BadParameter(f"at most a study and a stage, not {' '.join(names)}")
    project = opened_project(Path(names[0]) if len(names) == 2 else None, root, overrides, is_rehearsal=rehearse)
    log_view.print_log(project.plan(is_online=False), names[-1], is_following=follow)
