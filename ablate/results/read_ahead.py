"""The scores of all questions of a large study, read by every core before they are compared."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

from ablate.results.collect import Results
from ablate.results.question_scores import KeptScores, NotComparable, read_kept_scores, remember

LEAST_BYTES = 32 << 20
"""Of less, it is read before others could help."""
PARTS_A_CORE = 3
"""Of a task's files: so that no core waits long for the others."""


def read_ahead(results: Results) -> None:
    """Whatever is not read here is read once it is needed."""
    cores = len(os.sched_getaffinity(0))
    paths = sorted({path for cell in results.cells if cell.is_done for path in cell.sample_files}, key=_task_and_place)
    # a thread of this process might hold a lock, which a fork would then wait for
    if cores == 1 or threading.active_count() > 1 or sum(map(_size, paths)) < LEAST_BYTES:
        return
    parts = [part for _, files in groupby(paths, _task) for part in _parts(list(files), PARTS_A_CORE * cores)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
        for part, kept in zip(parts, pool.map(_read, parts), strict=True):
            for path, scores in zip(part, kept, strict=True):
                if scores:
                    remember(path, scores)


def _task_and_place(path: Path) -> tuple[str, Path]:
    return path.name, path


def _task(path: Path) -> str:
    return path.name


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _parts(paths: Sequence[Path], num: int) -> list[Sequence[Path]]:
    size = max(1, -(-len(paths) // num))
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def _read(paths: Sequence[Path]) -> list[KeptScores | None]:
    """-> of one task's files, whose questions are the same objects and so sent once."""
    return [_read_one(path) for path in paths]


def _read_one(path: Path) -> KeptScores | None:
    try:
        return read_kept_scores(path)
    except NotComparable:
        return None
