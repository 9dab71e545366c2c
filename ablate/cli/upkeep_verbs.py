"""Verbs that look after a root and a machine: verify, gc, doctor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import HERE, AnyPlace, AsJson, Executors, Rehearse, Root, Set, any_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ablate.core.doctor_line import Line
    from ablate.maintenance.garbage import Piece, References


def verify(
    study: AnyPlace = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Read everything under runs/ and compare it with what was written; 1 where something is damaged."""
    from ablate.cli.verify_view import damage_records, print_damages, reading
    from ablate.maintenance import verify
    from ablate.maintenance.references import studies_at_hand
    from ablate.store.store import Store

    plan = any_project(study, overrides, rehearse, root).plan(is_online=False) if study else None
    parts = verify.parts(Store(root), {stage.folder for stage in plan.stages} if plan else None)
    with reading() as on_progress:
        damages = verify.verify(parts, on_progress)
    records = damage_records(damages, studies_at_hand(Store(root)))
    if as_json:
        typer.echo(json.dumps({"parts": len(parts), "damaged": records}, indent=1))
    else:
        print_damages(records, parts)
    raise typer.Exit(1 if damages else 0)


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
    from ablate.cli.gc_view import gc_record, print_pieces, require_consent
    from ablate.core.text import data_size
    from ablate.maintenance.collection import collect
    from ablate.store.store import Store

    store = Store(root)

    def is_agreed(pieces: "list[Piece]", needed: "References") -> bool:
        if not as_json:
            print_pieces(store, pieces, needed)
        if dry_run or not pieces:
            return False
        require_consent(is_given=yes)
        return True

    pieces, needed, num_freed = collect(store, files or [], is_agreed)
    if num_freed is not None:
        typer.echo(f"freed {data_size(num_freed)}", err=as_json)
    if as_json:
        record = gc_record(pieces, needed, is_removed=bool(pieces) and not dry_run)
        typer.echo(json.dumps(record, indent=1))


def doctor(
    executor: Executors = None,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="For a job of --executor to run.")
    ] = 600,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Try whether this machine is fit to run studies: disk, limits, file system, libraries, cards, hub.

    With --executor: whether the machines of a profile are, by a stage that is run there.
    """
    from ablate.cli.doctor_view import printed_one_by_one
    from ablate.maintenance.doctor import doctor

    if executor:
        lines = printed_one_by_one(_of_executors(executor, wait_s, root), is_quiet=as_json)
    else:
        lines = printed_one_by_one(doctor(root), is_quiet=as_json)
    if as_json:
        typer.echo(json.dumps([line.record() for line in lines], indent=1))
    raise typer.Exit(1 if any(line.state == "problem" for line in lines) else 0)


def _of_executors(names: list[str], wait_s: float, root: Path) -> "Iterator[Line]":
    """-> what is told of each profile; what is waited for goes to stderr."""
    from ablate.execution.profile_file import profiles_named
    from ablate.maintenance.executor_doctor import doctor

    for profile in profiles_named(names, HERE):
        yield from doctor(root, profile, wait_s, lambda text: typer.echo(text, err=True))
