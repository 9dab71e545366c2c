"""What `verify`, `gc` and `doctor` do for a root, and how it is shown; each also as plain data for --json."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ablate.core.errors import AblateError
from ablate.core.text import data_size, duration
from ablate.maintenance import garbage, verify
from ablate.maintenance.filesystem_checks import Line
from ablate.maintenance.garbage import Piece, References
from ablate.maintenance.references import StudyReferences
from ablate.maintenance.verify import Damage, Part
from ablate.planning.plan import Plan
from ablate.store.store import Store

TELL_EVERY_S = 10.0
MOST_CELLS = 6
STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


# verify


def parts(store: Store, plan: Plan | None) -> list[Part]:
    """-> what is to be read of a root, or of one study."""
    return verify.parts(store, {stage.folder for stage in plan.stages} if plan else None)


def damage_records(damages: Sequence[Damage], studies: Sequence[StudyReferences]) -> list[dict[str, Any]]:
    """-> each damage with the cells that hang on it and the commands that repair it."""
    return [of._asdict() | {"cells": _cells(of, studies), "run": _repairs(of, studies)} for of in damages]


def _cells(damage: Damage, studies: Sequence[StudyReferences]) -> list[str]:
    return [cell for study in studies if damage.stage for cell in study.cells(damage.stage)]


def _repairs(damage: Damage, studies: Sequence[StudyReferences]) -> list[str]:
    return [of.command for of in studies if damage.study == of.name or (damage.stage and of.cells(damage.stage))]


def print_damages(records: Sequence[dict[str, Any]], read: Sequence[Part]) -> None:
    for of in records:
        print(f"damaged: {of['place']}: {of['why']}")
        if of["stage"]:
            print(
                f"    needed by {_listed(of['cells'])}"
                if of["cells"]
                else "    needed by no study at hand: `ablate gc`"
            )
        print(f"    {of['advice']}" + (f": {' ; '.join(of['run'])}" if of["run"] else ""))
    state = f"{len(records)} damaged" if records else "all as it was written"
    print(f"{len(read)} stages, attempts and records, {data_size(sum(part.num_bytes for part in read))} read: {state}")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_CELLS
    return ", ".join(names) if more < 2 else f"{', '.join(names[:MOST_CELLS])} and {more} more cells"


@contextmanager
def reading() -> Iterator[verify.OnProgress]:
    """-> told of progress: a bar with the time left on a terminal, a line now and then elsewhere, both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


def _lines() -> Callable[[int, int, str], None]:
    began = told_at = time.monotonic()

    def tell(done: int, total: int, name: str) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at > TELL_EVERY_S and done:
            told_at = now
            left = duration((now - began) / done * (total - done))
            print(
                f"{data_size(done)} of {data_size(total)} read, about {left} left; next: {name}",
                file=sys.stderr,
                flush=True,
            )

    return tell


# gc


def gc_record(pieces: Sequence[Piece], needed: References, *, is_removed: bool) -> dict[str, Any]:
    return {
        "removed": is_removed,
        "bytes": garbage.num_freed(pieces),
        "kept_because": list(needed.doubts),
        "pieces": [piece._asdict() | {"path": str(piece.path)} for piece in pieces],
    }


def print_pieces(store: Store, pieces: Sequence[Piece], needed: References) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=240)
    table = Table("what", "where", "size", "why", box=None)
    for piece in sorted(pieces, key=lambda piece: -piece.num_bytes):
        table.add_row(piece.what, str(piece.path.relative_to(store.root)), data_size(piece.num_bytes), piece.why)
    if pieces:
        console.print(table)
    for doubt in needed.doubts:
        print(f"no stage is removed, because of {doubt}. Run it again, or delete its folder under runs/studies")
    young = f"what was touched in the last {duration(garbage.MIN_AGE_S)} stays"
    print(f"{len(pieces)} to remove, {data_size(garbage.num_freed(pieces))}; {young}")


def require_consent(*, is_given: bool) -> None:
    """Raises AblateError where nobody can be asked, Abort where somebody says no."""
    if is_given:
        return
    if not sys.stdin.isatty():
        raise AblateError("nothing is removed: without a terminal to ask on, say --yes to remove it, --dry-run to look")
    typer.confirm("Remove it?", abort=True)


# doctor


def told_one_by_one(lines: Iterable[Line], *, is_quiet: bool) -> list[Line]:
    """-> the lines, each printed as soon as it is known."""
    console, found = Console(quiet=is_quiet), []
    for line in lines:
        found.append(line)
        console.print(f"[{STYLES[line.state]}]{line.state:8}[/]", end="")
        advice = f" -> {line.advice}" if line.advice else ""
        console.print(f"{line.what}: {line.text}{advice}", markup=False, highlight=False, soft_wrap=True)
    return found
