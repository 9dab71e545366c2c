"""Each change to a disk under runs/ is one operation with a name, done through one door."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Around: TypeAlias = Callable[[str, tuple[Path, ...], Callable[[], Any]], Any]
"""Is handed an operation's name, its paths (what it changes last) and what does it; does it, or what a disk may do."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _directly(name: str, paths: tuple[Path, ...], act: Callable[[], Any]) -> Any:
    return act()


_around: Around = _directly


def operate(name: str, act: Callable[[], T], *paths: Path) -> T:
    """Does one operation: write, append, mkdir, rename, link, unlink, rmdir, remove, touch, fsync or fsync_folder."""
    result: T = _around(name, paths, act)
    return result


@contextlib.contextmanager
def through(around: Around) -> Iterator[None]:
    """Meanwhile all operations of this process, of all its threads, go through `around`: a disk that fails, say."""
    global _around
    _around, before = around, _around
    try:
        yield
    finally:
        _around = before


@contextlib.contextmanager
def explaining_full_disk(path: Path, num_bytes: int) -> Iterator[None]:
    """Says of a full disk what was to be written, what is free, and what makes room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        words = f"{num_bytes:,} bytes were to be written, {free:,} are free; `ablate gc` may make room"
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({words})", str(path)) from error
