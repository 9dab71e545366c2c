"""The records of a metrics.jsonl as they are added, while a worker writes it, cuts it and moves it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.core import plain_files

MOST_BYTES = 16 << 20
"""Read at one look; the rest is read at the next ones."""


class MetricsTail:
    """Reads on from where it stopped. A file that was cut or replaced is read again, and no step is given twice."""

    def __init__(self, last_step: int = 0) -> None:
        self.last_step = last_step
        self._inode = self._offset = 0

    def read(self, path: Path) -> Iterator[tuple[int, dict[str, float]]]:
        """-> (step, figures) of each whole line that is new; nothing where no file can be read, no figure of text."""
        while lines := self._new_lines(path):
            for record in map(_record, lines):
                step = record.pop("step", 0)
                if isinstance(step, int) and step > self.last_step:
                    self.last_step = step
                    yield step, {name: one for name, value in record.items() if (one := _figure(value)) is not None}

    def _new_lines(self, path: Path) -> list[bytes]:
        try:
            with plain_files.opened(path) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                data = file.read(MOST_BYTES)
        except OSError:  # not there yet, or gone; what can be read later is read then
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _figure(value: Any) -> float | None:
    """-> a number; what is not finite is written as text."""
    try:
        return value if isinstance(value, int | float) else float(value)
    except (TypeError, ValueError):
        return None
