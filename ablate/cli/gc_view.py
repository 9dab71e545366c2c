"""What `gc` prints and asks: what is to be removed, why, and how large it is; for --json the same as plain data."""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.table import Table

from ablate.cli.console import console_of_stdout
from ablate.core.errors import AblateError
from ablate.core.text import data_size, duration
from ablate.maintenance import garbage
from ablate.maintenance.garbage import Piece, References
from ablate.store.store import Store


def gc_record(pieces: Sequence[Piece], needed: References, *, is_removed: bool) -> dict[str, Any]:
    return {
        "removed": is_removed,
        "bytes": garbage.num_freed(pieces),
        "kept_because": list(needed.doubts),
        "variants": [{"record": str(path), "command": command} for path, command in needed.variants.items()],
        "pieces": [piece._asdict() | {"path": str(piece.path)} for piece in pieces],
    }


def print_pieces(store: Store, pieces: Sequence[Piece], needed: References) -> None:
    table = Table("what", "where", "size", "why", box=None)
    for piece in sorted(pieces, key=lambda piece: -piece.num_bytes):
        table.add_row(piece.what, str(piece.path.relative_to(store.root)), data_size(piece.num_bytes), piece.why)
    if pieces:
        console_of_stdout().print(table)
    for doubt in needed.doubts:
        print(f"no stage is removed, because of {doubt}. Run it again, or delete its folder under runs/studies")
    _print_variants(store, needed)
    young = f"what was touched in the last {duration(garbage.MIN_AGE_S)} stays"
    print(f"{len(pieces)} to remove, {data_size(garbage.num_freed(pieces))}; {young}")


def _print_variants(store: Store, needed: References) -> None:
    """Tells what is kept for runs that are not the last ones, and how one gives it up."""
    if needed.variants:
        print("kept for studies that were run otherwise than last; to give one up, delete its record:")
    for record, command in needed.variants.items():
        print(f"    {command}: {record.relative_to(store.root)}")


def require_consent(*, is_given: bool) -> None:
    """Raises AblateError where nobody can be asked, Abort where somebody says no."""
    if is_given:
        return
    if not sys.stdin.isatty():
        raise AblateError("nothing is removed: without a terminal to ask on, say --yes to remove it, --dry-run to look")
    typer.confirm("Remove it?", abort=True)
