"""Files that are being written, each beside the one that it will be, named by the process that writes it."""

import contextlib
import functools
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ablate.core.disk_operations import operate

_NAME = re.compile(r"\..+\.(\d+)")


def writer_of(path: Path) -> int | None:
    """-> the pid in a temporary file's name, on whichever machine; None for any other file."""
    name = _NAME.fullmatch(path.name)
    return int(name[1]) if name else None


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """-> where a file is written before it is put in place; in the end nothing of it is left."""
    sweep(path)
    temporary = path.with_name(f".{path.name}.{place()}.{os.getpid()}")
    try:
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(temporary)
        raise


def sweep(path: Path, *, is_ours_too: bool = False) -> None:
    """Removes what writers of this file left that were killed: a process of another machine may live.

    `is_ours_too`: also what this process has left, where a disk let it remove nothing; it must write no more.
    """
    leftover = re.compile(re.escape(f".{path.name}.{place()}.") + r"(\d+)")
    for name in os.listdir(path.parent):  # noqa: PTH208 (one call, before every write)
        writer = leftover.fullmatch(name)
        is_over = writer and (not Path("/proc", writer[1]).exists() or (is_ours_too and int(writer[1]) == os.getpid()))
        if is_over:
            unlink(path.parent / name)


def unlink(path: Path) -> None:
    """Removes one file; one that is not there was wanted gone."""
    operate("unlink", lambda: path.unlink(missing_ok=True), path)


@functools.cache
def place() -> str:
    """-> where a pid means one process: this machine, or this container."""
    namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]
