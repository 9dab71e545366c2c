"""Verbs that start from a study file: validate, plan, run; explain, schema and new beside them."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import (
    HERE,
    AsJson,
    CellName,
    Detach,
    Executors,
    KeepGoing,
    Rehearse,
    Root,
    Set,
    StudyFile,
    TakeOver,
    cell_named,
    project_of_file,
)
from ablate.core.errors import AblateError, NameTakenError

if TYPE_CHECKING:
    from ablate.execution.study_run import RunOptions
    from ablate.planning.project import Project


def validate(
    study: StudyFile,
    overrides: Set = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the study with every default.")] = False,
    root: Root = HERE,
) -> None:
    """Tell every mistake in a study at once, each with its place, what was given and what is possible."""
    from ablate.planning.row_notes import shapes_found
    from ablate.planning.warnings import study_warnings
    from ablate.study.explain import explain as explained

    project = project_of_file(study, overrides, False, root)
    for shape in shapes_found(project.rows):
        typer.echo(shape, err=True)
    for warning in (*_name_warnings(project), *study_warnings(project.study, project.rows)):
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(explained(project.study) if explain else f"{study}: a valid study")


def _name_warnings(project: "Project") -> tuple[str, ...]:
    """-> names that are perhaps not what they seem: the study's own in this root, those of its models and data."""
    from ablate.planning.warnings import near_folders

    near = tuple(near_folders(project.rows, project.source.parent))
    try:
        project.require_own_name()
    except NameTakenError as error:
        return (str(error), *near)
    return near


def plan(
    study: StudyFile,
    overrides: Set = None,
    rehearse: Rehearse = False,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="N[,M..]", help="How long on so many cards; on what is here unless said."),
    ] = None,
    cards: Annotated[
        list[str] | None,
        typer.Option(
            "--cards",
            metavar="NxGB[,NxGB..]",
            help="Whether the largest stages fit on cards that need not be here, and how: 4x80GB, 1,2,4,8x24,80GB.",
        ),
    ] = None,
    executor: Executors = None,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Show the stages of a study: what is shared, what is done, why the rest is not, and what it will cost."""
    from ablate.cli.cards_view import cards_record, print_cards
    from ablate.cli.plan_view import plan_record, print_plan
    from ablate.execution.forecast import outlook
    from ablate.execution.profile_file import profiles_named
    from ablate.planning.asked_cards import asked_cards

    num_cards, asked = _numbers_of_cards(gpus), asked_cards(cards or ())
    project = project_of_file(study, overrides, rehearse, root)
    profiles = profiles_named(executor, study.parent) if executor else ()
    plan = project.plan_weighed(lambda plan: outlook(plan, {}, num_cards, profiles).device)
    taken = _name_warnings(project)
    if as_json:
        more = {"cards": cards_record(plan, asked)} if asked else {}
        typer.echo(json.dumps(plan_record(plan, num_cards, taken, profiles) | more, indent=1))
    else:
        print_plan(plan, num_cards, taken, profiles)
        if asked:
            print_cards(plan, asked)


def _numbers_of_cards(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not all(part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise AblateError(f"--gpus {text}: plan takes numbers of cards, such as 4 or 1,2,4,8")
    return tuple(int(part) for part in text.split(","))


def run(
    study: StudyFile,
    overrides: Set = None,
    rehearse: Rehearse = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Cells to bring to an end: ablation/row[@seed]."),
    ] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", metavar="0,1", help="Cards to use; all unless said.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Stages at once where there is no GPU.")] = None,
    executor: Executors = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="NAME[:WHERE]", help="Who hears of the run, such as jsonl; may be several."),
    ] = None,
    keep_going: KeepGoing = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    take_over: TakeOver = False,
    detach: Detach = False,
    root: Root = HERE,
) -> None:
    """Run a study to its end: run, resume, retry and extend are this one command, any number of times."""
    from ablate.execution.profile_file import profiles_named
    from ablate.execution.study_run import RunOptions
    from ablate.machine.slots import Placing

    project = project_of_file(study, overrides, rehearse, root)
    options = RunOptions(
        only=tuple(only or ()),
        profiles=profiles_named(executor or (), study.parent),
        placing=Placing(gpus=tuple(gpus.split(",")) if gpus else None, num_jobs=jobs),
        trackers=tuple(tracker or ()),
        is_keep_going=keep_going,
        is_fail_fast=fail_fast,
        is_take_over=take_over,
    )
    code = _detach(project, options, root) if detach else _run(project, options)
    if code in (75, 130):
        typer.echo(f"stopped; to go on: {shlex.join(['ablate', *sys.argv[1:]])}")
    raise typer.Exit(code)


def _run(project: "Project", options: "RunOptions") -> int:
    """-> the exit code; what came of it is printed before the last line."""
    from ablate.cli.run_end_view import print_end
    from ablate.run import run_study

    return run_study(project, options, lambda report: print_end(report, project.study.name)).exit_code


def _detach(project: "Project", options: "RunOptions", root: Path) -> int:
    """-> the exit code of the run as far as it came here: 0 once it goes on by itself."""
    from ablate.cli.detach_view import print_detached
    from ablate.execution.detached.detach import Ended
    from ablate.run import detach_study

    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    outcome = detach_study(project, options, arguments, lambda line: typer.echo(line, err=True))
    if isinstance(outcome, Ended):
        typer.echo(outcome.text, err=outcome.exit_code != 0)
        return outcome.exit_code
    print_detached(outcome, project.study.name, root)
    return 0


def data(
    study: StudyFile,
    overrides: Set = None,
    pair: Annotated[str | None, typer.Option("--pair", metavar="PAIR", help="Of one pair alone.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, metavar="N", help="How many rows to show of each set.")] = 3,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page.")] = None,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Show training rows decoded, with what counts in the loss, their lengths, and what was cut or left out."""
    from ablate.cli.console import console_of_stdout
    from ablate.cli.data_page import data_page
    from ablate.cli.data_view import data_record, print_data, shown_rows
    from ablate.core import disk
    from ablate.planning.row_sets import row_sets

    project = project_of_file(study, overrides, False, root)
    shown = [shown_rows(row_set, rows) for row_set in row_sets(project.plan(), pair)]
    if html:
        disk.write(html, data_page(project.study.name, shown))
    if as_json:
        typer.echo(json.dumps(data_record(project.study.name, shown), indent=1))
    elif html:
        typer.echo(f"wrote {html}")
    else:
        print_data(console_of_stdout(), shown)


def explain(cell: CellName, root: Root = HERE) -> None:
    """Show the lineage of one cell: every stage behind it, with its settings and key."""
    from ablate.cli.explain_view import print_lineage

    print_lineage(*cell_named(cell, root))


OfExecutors = Annotated[bool, typer.Option("--executors", help="Of executors.yaml, the profiles of `--executor`.")]


def schema(executors: OfExecutors = False) -> None:
    """Print the JSON schema of study files, for editors."""
    from ablate.execution import profile_template
    from ablate.study import explain

    typer.echo(json.dumps((profile_template if executors else explain).json_schema(), indent=1))


def new(
    path: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="File to write: study.yaml.")] = None,
    executors: OfExecutors = False,
) -> None:
    """Write a commented study to start from, or commented profiles of executors."""
    from ablate.execution import profile_template
    from ablate.study import template

    path = path or Path("executors.yaml" if executors else "study.yaml")
    (profile_template if executors else template).write_template(path)
    then = "ablate doctor --executor NAME" if executors else f"ablate validate {path}"
    typer.echo(f"wrote {path}; next: {then}")
