"""Verbs about a run: status, stop, logs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.options import HERE, AnyStudy, AsJson, Rehearse, Root, Set, any_project


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

    project = any_project(study, overrides, rehearse, root)
    if watch:
        status_view.watch(lambda: project.plan(is_online=False), as_json=as_json)
        return
    standing = status_view.look(project.plan(is_online=False))
    if as_json:
        typer.echo(json.dumps(status_view.status_record(standing), indent=1))
    else:
        status_view.print_status(standing)


def stop(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    now: Annotated[bool, typer.Option("--now", help="Without a last checkpoint.")] = False,
    root: Root = HERE,
) -> None:
    """End what runs for a study, also what its run left behind; the same command resumes it."""
    from ablate.execution.stop import stop_study

    project = any_project(study, overrides, rehearse, root)
    num_stopped = stop_study(project.store, project.study.name, is_now=now)
    typer.echo(f"stopped {num_stopped} stage{'' if num_stopped == 1 else 's'} of {project.study.name}")


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
    from ablate.cli.log_view import print_log

    *study, stage = names
    if len(study) > 1:
        raise typer.BadParameter(f"at most a study and a stage, not {' '.join(names)}")
    project = any_project(Path(study[0]) if study else None, overrides, rehearse, root)
    print_log(lambda: project.plan(is_online=False), stage, is_following=follow)
