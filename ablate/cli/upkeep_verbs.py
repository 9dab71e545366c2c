"""Verbs that look after a root and a machine: verify, gc, doctor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli.options import HERE, AnyPlace, AsJson, Rehearse, Root, Set, opened_project

if TYPE_CHECKING:
    from ablate.maintenance.garbage import Piece, References


def verify(
    study: AnyPlace = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    as_json: AsJson = False,
    root: Root = HERE,
) -> None:
    """Read everything under runs/ and compare it with what was written; 1 where something is damaged."""
    from ablate.cli import maintenance_view
    from ablate.maintenance import verify
    from ablate.maintenance.references import studies_at_hand
    from ablate.store.store import Store

    project = opened_project(study, root, overrides, is_rehearsal=rehearse) if study else None
    plan = project.plan(is_online=False) if project else None
    parts = maintenance_view.parts(Store(root), plan)
    with maintenance_view.reading() as tell:
        damages = verify.verify(parts, tell)
    records = maintenance_view.damage_records(damages, studies_at_hand(Store(root)))
    if as_json:
        typer.echo(json.dumps({"parts": len(parts), "damaged": records}, indent=1))
    else:
        maintenance_view.print_damages(records, parts)
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
    from ablate.cli import maintenance_view
    from ablate.core.text import data_size
    from ablate.maintenance.collection import collect
    from ablate.store.store import Store

    store = Store(root)

    def is_agreed(pieces: "list[Piece]", needed: "References") -> bool:
        if not as_json:
            maintenance_view.print_pieces(store, pieces, needed)
        if dry_run or not pieces:
            return False
        maintenance_view.require_consent(is_given=yes)
        return True

    pieces, needed, num_freed = collect(store, files or [], is_agreed)
    if num_freed is not None:
        typer.echo(f"freed {data_size(num_freed)}", err=as_json)
    if as_json:
        record = maintenance_view.gc_record(pieces, needed, is_removed=bool(pieces) and not dry_run)
        typer.echo(json.dumps(record, indent=1))


def doctor(as_json: AsJson = False, root: Root = HERE) -> None:
    """Try whether this machine is fit to run studies: disk, limits, file system, libraries, cards, hub."""
    from ablate.cli import maintenance_view
    from ablate.maintenance import doctor

    lines = maintenance_view.told_one_by_one(doctor.doctor(root), is_quiet=as_json)
    if as_json:
        typer.echo(json.dumps([line.record() for line in lines], indent=1))
    raise typer.Exit(1 if any(line.state == "problem" for line in lines) else 0)
