"""The command line: each verb is one library call."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.errors import AblateError
from ablate.failures import is_of_disk

if TYPE_CHECKING:
    from ablate.planning import Plan
    from ablate.session import Session

app = typer.Typer(
    name="ablate",
    help="Ablation studies of knowledge distillation: a study file in, comparison tables and loss curves out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from ablate import __version__

        typer.echo(f"ablate {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def _common(root: Root = HERE, version: Version = False) -> None:
    os.environ["ABLATE_ROOT"] = str(root)  # where the verb, whose options are read next, looks for it


@app.command()
def validate(
    study: StudyFile,
    overrides: Set = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the study with every default.")] = False,
    root: Root = HERE,
) -> None:
    """Tell every mistake in a study at once, each with its place, what was given and what is possible."""
    from ablate.session import open_study
    from ablate.spec.explain import explain as explained
    from ablate.warnings import study_warnings

    session = open_study(study, root, overrides or ())
    for warning in study_warnings(session.study):
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(explained(session.study) if explain else f"{study}: a valid study")


@app.command()
def plan(
    study: StudyFile,
    overrides: Set = None,
    rehearse: Rehearse = False,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="N[,M..]", help="How long on so many cards; on what is here unless said."),
    ] = None,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Show the stages of a study: what is shared, what is done, why the rest is not, and what it will cost."""
    from ablate import views
    from ablate.session import open_study

    nums = _numbers(gpus)
    made = open_study(study, root, overrides or (), is_rehearsal=rehearse).plan()
    typer.echo(json.dumps(views.plan_record(made, nums), indent=1)) if as_json else views.print_plan(made, nums)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not all(part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise AblateError(f"--gpus {text}: plan takes numbers of cards, such as 4 or 1,2,4,8")
    return tuple(int(part) for part in text.split(","))


@app.command()
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
    executor: Annotated[str, typer.Option("--executor", help="Where workers are placed.")] = "local",
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on however often the same failure comes.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    root: Root = HERE,
) -> None:
    """Run a study to its end: run, resume, retry and extend are this one command, any number of times."""
    from ablate.running import RunOptions, run_study
    from ablate.session import open_study

    session = open_study(study, root, overrides or (), is_rehearsal=rehearse)
    options = RunOptions(
        only=tuple(only or ()),
        gpus=tuple(gpus.split(",")) if gpus else None,
        num_jobs=jobs,
        executor=executor,
        is_keep_going=keep_going,
        is_fail_fast=fail_fast,
    )
    code = run_study(session, options).exit_code
    if code in (75, 130):
        typer.echo(f"stopped; to go on: {shlex.join(['ablate', *sys.argv[1:]])}")
    raise typer.Exit(code)


@app.command()
def status(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is over.")] = False,
    root: Root = HERE,
) -> None:
    """Show what is done, running, failed (why) and waiting."""
    from ablate import standing

    session = _session(study, root, overrides, is_rehearsal=rehearse)
    if watch:
        return standing.watch(lambda: session.plan(is_online=False), as_json=as_json)
    now = standing.look(session.plan(is_online=False))
    return typer.echo(json.dumps(standing.status_record(now), indent=1)) if as_json else standing.print_status(now)


@app.command()
def stop(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    now: Annotated[bool, typer.Option("--now", help="Without a last checkpoint.")] = False,
    root: Root = HERE,
) -> None:
    """End what runs for a study, also what its run left behind; the same command resumes it."""
    from ablate import status as statuses

    session = _session(study, root, overrides, is_rehearsal=rehearse)
    stopped = statuses.stop(session.store, session.study.name, is_now=now)
    typer.echo(f"stopped {stopped} stage{'' if stopped == 1 else 's'} of {session.study.name}")


@app.command()
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
    from ablate import views

    if len(names) > 2:
        raise typer.BadParameter(f"at most a study and a stage, not {' '.join(names)}")
    session = _session(Path(names[0]) if len(names) == 2 else None, root, overrides, is_rehearsal=rehearse)
    views.print_log(session.plan(is_online=False), names[-1], is_following=follow)


@app.command()
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
    from ablate.report import write_report

    if compare and len(studies or ()) > 1:
        raise typer.BadParameter("--compare holds one study against itself in another root: name one study")
    named: list[Path | None] = [*(studies or ())] or [None]
    plans = [_session(of, root, overrides, is_rehearsal=rehearse).plan(is_online=False) for of in named]
    there = _elsewhere(plans[0], compare, root) if compare else None
    together = write_report(*plans)
    for plan in plans if len(plans) > 1 else ():
        typer.echo(f"wrote {write_report(plan)}")
    typer.echo(f"wrote {together}")
    if there:
        from ablate.report import write_comparison
        from ablate.scores import collect

        typer.echo(f"wrote {write_comparison(collect(plans[0]), collect(there), together)}")


def _elsewhere(plan: "Plan", compare: Path, root: Path) -> "Plan":
    """-> the same study as it was run in another root. Raises AblateError when it was not."""
    from ablate.session import reopen_study

    if compare.resolve() == root.resolve():
        raise AblateError(f"--compare {compare} is the root itself: name the folder of another run")
    if not (compare / "runs").is_dir():
        raise AblateError(f"--compare {compare}: there is no runs/ in it")
    return reopen_study(compare, plan.study.name).plan(is_online=False)


@app.command()
def explain(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="[STUDY:]ABLATION/ROW[@SEED]")], root: Root = HERE
) -> None:
    """Show the lineage of one cell: every stage behind it, with its settings and key."""
    from ablate.explaining import print_lineage

    print_lineage(*_find(cell, root))


@app.command()
def export(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="[STUDY:]ABLATION/ROW[@SEED]")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    root: Root = HERE,
) -> None:
    """Write one cell's model as an ordinary folder that `from_pretrained` and `lm_eval` read."""
    from ablate.export import export_cell

    export_cell(*_find(cell, root), folder)
    typer.echo(f"wrote {folder}")


def _session(study: Path | None, root: Path, overrides: list[str] | None, *, is_rehearsal: bool) -> "Session":
    """-> the study that a verb speaks of; where that is not what its file says now, a reader is told."""
    from ablate.session import session_of

    session = session_of(study, root, overrides or (), is_rehearsal=is_rehearsal)
    if session.doubt:
        typer.echo(f"note: {session.doubt}", err=True)
    return session


def _find(cell: str, root: Path) -> tuple[Any, Any]:
    from ablate.session import find_cell

    return find_cell(cell, root)


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="KEY")],
    other: Annotated[str, typer.Argument(metavar="KEY")],
    root: Root = HERE,
) -> None:
    """Show in what two stages differ: settings, what was put into them, versions."""
    from ablate.explaining import print_diff
    from ablate.store import Store

    print_diff(Store(root), one, other)


@app.command()
def verify(
    study: AnyPlace = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Read everything under runs/ and compare it with what was written; 1 where something is damaged."""
    from ablate import integrity, upkeep
    from ablate.references import studies_at_hand
    from ablate.store import Store

    session = _session(study, root, overrides, is_rehearsal=rehearse) if study else None
    plan = session.plan(is_online=False) if session else None
    parts = upkeep.parts(Store(root), plan)
    with upkeep.reading() as tell:
        damages = integrity.verify(parts, tell)
    records = upkeep.damage_records(damages, studies_at_hand(Store(root)))
    if as_json:
        typer.echo(json.dumps({"parts": len(parts), "damaged": records}, indent=1))
    else:
        upkeep.print_damages(records, parts)
    raise typer.Exit(1 if damages else 0)


@app.command()
def gc(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Studies to keep for, beside those run here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Remove what no study at hand needs: stages, leftovers of tries, what was set aside."""
    from ablate import garbage, references, upkeep
    from ablate.store import Store
    from ablate.text import data_size

    store, named = Store(root), files or []
    needed = references.needed(store, named)
    pieces = garbage.find(store, needed)
    if not as_json:
        upkeep.print_pieces(store, pieces, needed)
    if pieces and not dry_run:
        upkeep.require_consent(is_given=yes)
        needed = references.needed(store, named)  # a run may have begun while somebody thought
        still = {piece.path for piece in garbage.find(store, needed)}
        pieces = [piece for piece in pieces if piece.path in still]
        freed = garbage.remove(store, pieces, needed, lambda: references.needed(store, named))
        typer.echo(f"freed {data_size(freed)}", err=as_json)
    if as_json:
        typer.echo(json.dumps(upkeep.gc_record(pieces, needed, is_removed=bool(pieces) and not dry_run), indent=1))


@app.command()
def doctor(as_json: AsJson = False, root: Root = HERE) -> None:
    """Try whether this machine is fit to run studies: disk, limits, file system, libraries, cards, hub."""
    from ablate import fitness, upkeep

    lines = upkeep.told_one_by_one(fitness.doctor(root), is_quiet=as_json)
    if as_json:
        typer.echo(json.dumps([line._asdict() for line in lines], indent=1))
    raise typer.Exit(1 if any(line.state == "problem" for line in lines) else 0)


@app.command()
def schema() -> None:
    """Print the JSON schema of study files, for editors."""
    from ablate.spec.explain import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@app.command()
def new(path: Annotated[Path, typer.Argument(metavar="STUDY", help="File to write.")] = Path("study.yaml")) -> None:
    """Write a commented study to start from."""
    from ablate.spec.template import write_template

    write_template(path)
    typer.echo(f"wrote {path}; next: ablate validate {path}")


def main(call: Callable[[], Any] = app) -> None:
    """Runs a verb; an error made for a reader is printed without a traceback and ends with its exit code."""
    try:
        call()
    except AblateError as error:
        typer.echo(f"error: {error}" if "\n" not in str(error) else str(error), err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # of this machine: a folder that cannot be made or written, a disk that is full
        is_passing = is_of_disk(error)
        then = "; then the same command goes on" if is_passing else ""
        typer.echo(f"error: {error.filename or 'this machine'}: {error.strerror or error}{then}", err=True)
        sys.exit(75 if is_passing else 2)
    except KeyboardInterrupt:
        sys.exit(130)
