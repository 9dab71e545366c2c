"""How many processes a stage may run at once, and how many it does: code of a model or task can fork for ever."""

import contextlib
import os
from pathlib import Path
from typing import Final

import psutil

MOST: Final = max(256, 4 * (os.cpu_count() or 1))
"""Libraries start one a core at times."""


def num_descendants(pid: int, most: int = MOST) -> int:
    """-> the processes that one has started, and those that they have, alive or not waited for; counted to `most`."""
    try:
        rest, num = _children(pid), 0
        while rest and num <= most:
            num += 1
            with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
                rest += _children(rest.pop())
        return num
    except OSError:  # a kernel without lists of children
        with contextlib.suppress(psutil.Error):
            return len(psutil.Process(pid).children(recursive=True))
    return 0


def _children(pid: int) -> list[int]:
    lists = [path / "children" for path in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for path in lists for child in path.read_text().split()]
