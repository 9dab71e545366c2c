"""What `verify` prints: how far it is, then every damage with what hangs on it and the commands that repair it."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ablate.core.text import data_size, duration
from ablate.maintenance.references import StudyReferences
from ablate.maintenance.verify import Damage, OnProgress, Part

PRINT_EVERY_S = 10.0
MOST_CELLS = 6


def damage_records(damages: Sequence[Damage], studies: Sequence[StudyReferences]) -> list[dict[str, Any]]:
    """-> each damage with the cells that hang on it and the commands that repair it."""
    return [
        damage._asdict() | {"cells": _cells(damage, studies), "run": _repairs(damage, studies)} for damage in damages
    ]


def _cells(damage: Damage, studies: Sequence[StudyReferences]) -> list[str]:
    return [cell for study in studies if damage.stage for cell in study.cells(damage.stage)]


def _repairs(damage: Damage, studies: Sequence[StudyReferences]) -> list[str]:
    needing = (study for study in studies if damage.study == study.name or (damage.stage and study.cells(damage.stage)))
    return [study.command for study in needing]


def print_damages(records: Sequence[dict[str, Any]], parts: Sequence[Part]) -> None:
    """Every damage, then how much was read: `parts`."""
    for record in records:
        _print_damage(record)
    state = f"{len(records)} damaged" if records else "all as it was written"
    num_bytes = sum(part.num_bytes for part in parts)
    print(f"{len(parts)} stages, attempts and records, {data_size(num_bytes)} read: {state}")


def _print_damage(record: dict[str, Any]) -> None:
    print(f"damaged: {record['place']}: {record['why']}")
    if record["stage"] and record["cells"]:
        print(f"    needed by {_listed(record['cells'])}")
    elif record["stage"]:
        print("    needed by no study at hand: `ablate gc`")
    print(f"    {record['advice']}" + (f": {' ; '.join(record['run'])}" if record["run"] else ""))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_CELLS
    return ", ".join(names) if more < 2 else f"{', '.join(names[:MOST_CELLS])} and {more} more cells"


@contextmanager
def reading() -> Iterator[OnProgress]:
    """-> what hears of progress, and shows it with the time left on stderr: a bar on a terminal, else now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


class _Lines:
    """A line about progress every few seconds, with the time left."""

    def __init__(self) -> None:
        self._began = self._printed_at = time.monotonic()

    def __call__(self, done: int, total: int, name: str) -> None:
        now = time.monotonic()
        if now - self._printed_at <= PRINT_EVERY_S or not done:
            return
        self._printed_at = now
        left = duration((now - self._began) / done * (total - done))
        line = f"{data_size(done)} of {data_size(total)} read, about {left} left; next: {name}"
        print(line, file=sys.stderr, flush=True)
