"""What can lie at a place where a file or a folder should be, each as a disk, a person or an attacker may leave it."""

import contextlib
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

DECOY = "decoy"
"""Beside a root: what a link out of it leads to. Nothing may read it as ours, change it or remove it."""


def gone(path: Path) -> None:
    """Whatever it is, no link of it followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _decoy(path: Path) -> Path:
    """-> a copy of what lies at a place, outside the root: the most tempting thing for a link to lead to."""
    root = next(folder.parent for folder in (path, *path.parents) if folder.name in ("runs", "reports"))
    decoy = root.with_name(f"{root.name}.{DECOY}") / path.name
    gone(decoy)
    decoy.parent.mkdir(exist_ok=True)
    if path.is_file():
        shutil.copy2(path, decoy)
        return decoy
    if path.is_dir():
        shutil.copytree(path, decoy)
    decoy.mkdir(exist_ok=True)
    (decoy / "precious.txt").write_text("a person's")
    return decoy


def link_out(path: Path) -> None:
    decoy = _decoy(path)
    gone(path)
    path.symlink_to(decoy)


def dangling(path: Path) -> None:
    gone(path)
    path.symlink_to(path.parent / "nothing" / "here")


def loop(path: Path) -> None:
    gone(path)
    path.symlink_to(path)


def endless(path: Path) -> None:
    gone(path)
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    gone(path)
    os.mkfifo(path)


def socket_(path: Path) -> None:
    gone(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # its name may be longer than a socket's can be
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def device(path: Path) -> None:
    """/dev/zero itself, which only the superuser can make; elsewhere a pipe."""
    gone(path)
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        os.mkfifo(path)


def swapped(path: Path) -> None:
    """A folder for a file, and a file for a folder."""
    is_folder = path.is_dir()
    gone(path)
    if is_folder:
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "inside").write_text("a file")


def huge(path: Path) -> None:
    """A terabyte that takes no room; in a folder, beside what is there."""
    place = path / "huge.json" if path.is_dir() else path
    with place.open("wb") as file:
        file.truncate(1 << 40)


def bytes_name(path: Path) -> None:
    place = os.fsencode(path if path.is_dir() else path.parent) + b"/\xff\xfe.json"
    with open(place, "wb"):  # noqa: PTH123 (a name that is no text)
        pass


def line_name(path: Path) -> None:
    ((path if path.is_dir() else path.parent) / "two\nlines.json").write_text("{}")


def deep(path: Path) -> None:
    """Folders in each other: a name of the last would be too long for the system."""
    place = path if path.is_dir() else path.parent
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(place)
        for _ in range(24):
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.fchdir(before)
        os.close(before)


Hurt = Callable[[Path], None]
REPLACING: dict[str, Hurt] = {
    "link out": link_out, "dangling": dangling, "loop": loop, "endless": endless, "pipe": pipe, "socket": socket_,
    "device": device, "swapped": swapped,
}  # fmt: skip
ADDING: dict[str, Hurt] = {"huge": huge, "bytes name": bytes_name, "line name": line_name, "deep": deep}
DAMAGES = REPLACING | ADDING


def contents(folder: Path) -> dict[str, bytes]:
    """-> all files below a folder, no link followed."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in whatever takes longer, a blocking call of the system too."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
