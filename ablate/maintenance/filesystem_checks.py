"""What runs/ asks of a file system, each thing tried in a folder of its own."""

import errno
import fcntl
import time
from collections.abc import Callable
from pathlib import Path

from ablate.core import disk
from ablate.core.doctor_line import Line

CLOCK_S = 60.0


def run_check(what: str, check: Callable[[Path], Line], folder: Path) -> Line:
    """-> what a check says, done in a folder of its own; that it fails where the file system does."""
    place = folder / what.replace(" ", "-")
    try:
        place.mkdir()
        return check(place)
    except OSError as error:
        return Line("problem", what, f"fails: {error.strerror}", "a --root on another file system")


def _write(place: Path) -> Line:
    began = time.monotonic()
    disk.write(place / "file", b"x" * 4096)
    disk.write(place / "file", b"y" * 4096)
    is_right = (place / "file").read_bytes() == b"y" * 4096 and len(list(place.iterdir())) == 1
    took_ms = (time.monotonic() - began) / 2 * 1000
    if not is_right:
        return Line("problem", "write and replace", "a file is not what was written", "a --root on another file system")
    return Line("ok", "write and replace", f"{took_ms:.1f} ms a file, made durable")


def _commit(place: Path) -> Line:
    """A result is committed by renaming its folder: onto one that has something in it that must fail."""
    for name in ("first", "second"):
        (place / name).mkdir()
        (place / name / "file").write_text(name)
    disk.rename(place / "first", place / "stage")
    try:
        disk.rename(place / "second", place / "stage")
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return Line("ok", "commit by rename", "the first one wins")
        raise
    return Line("problem", "commit by rename", "a second one replaces the first", "a --root on another file system")


def _link(place: Path) -> Line:
    (place / "file").write_text("x")
    try:
        (place / "other").hardlink_to(place / "file")
    except OSError as error:
        return Line("warning", "hard links", f"none ({error.strerror}): checkpoints are copied, which takes room")
    return Line("ok", "hard links", "checkpoints are shared")


def _lock(place: Path) -> Line:
    with (place / "lock").open("w") as one, (place / "lock").open("w") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Line("ok", "locks", "one at a time")
    return Line("warning", "locks", "given to everyone: two runs are told apart by their records alone")


def _clock(place: Path) -> Line:
    (place / "file").write_text("x")
    apart_s = abs((place / "file").stat().st_mtime - time.time())
    if apart_s < CLOCK_S:
        return Line("ok", "clock", "files are dated by it")
    advice = "`ablate gc` judges by age: set the clocks right before"
    return Line("warning", "clock", f"{apart_s:,.0f} s apart from the file system's", advice)


CHECKS = {
    "write and replace": _write,
    "commit by rename": _commit,
    "hard links": _link,
    "locks": _lock,
    "clock": _clock,
}
