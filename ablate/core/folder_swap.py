"""A folder that is replaced as a whole: whoever looks sees all of the old one or all of the new one."""

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ablate.core import disk, plain_files
from ablate.core.disk_operations import operate
from ablate.core.temporary_files import place

RENAME_EXCHANGE, AT_FDCWD = 2, -100
UNABLE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def replaced(folder: Path, ours: Collection[str]) -> Iterator[Path]:
    """-> an empty folder that takes the place of another, or of whatever has its name, once it is filled.

    `ours`: names of files below the old one that go with it; what else lies in it is kept, unless the new one has it.
    """
    disk.make_folder(folder.parent)
    _sweep(folder)
    new = folder.with_name(f".{folder.name}.{place()}.{os.getpid()}")
    disk.make_new_folder(new)
    try:
        yield new
        others = _others(folder, ours) if plain_files.is_folder(folder) else []
        _link(folder, new, [name for name, what in others if what == "a file"])
        _exchange(new, folder)
        _move(new, folder, [name for name, what in others if what != "a file"])
    finally:
        disk.remove_tree(new)


def _sweep(folder: Path) -> None:
    """Removes what writers of this folder left that were killed."""
    leftover = re.compile(re.escape(f".{folder.name}.{place()}.") + r"(\d+)")
    for path, _ in plain_files.entries(folder.parent):
        writer = leftover.fullmatch(path.name)
        if writer and (int(writer[1]) == os.getpid() or not Path("/proc", writer[1]).exists()):
            disk.remove_tree(path)


def _others(folder: Path, ours: Collection[str]) -> list[tuple[Path, str]]:
    """-> what lies in the old folder and is not ours: its place in it, and what it is."""
    inside = ((path.relative_to(folder), what) for path, what in plain_files.below(folder))
    return [(name, what) for name, what in inside if name.as_posix() not in ours]


def _link(folder: Path, new: Path, names: Collection[Path]) -> None:
    for name in names:
        target = _beside_ours(new, name)
        if plain_files.what_is(target) is None:
            disk.make_folder(target.parent)
            disk.link(folder / name, target)


def _beside_ours(new: Path, name: Path) -> Path:
    """-> where a file goes that may have been in a folder in the place of one of our files."""
    for parent in reversed(name.parents[:-1]):
        if plain_files.what_is(new / parent) == "a file":
            return new / f"{parent}.aside" / name.relative_to(parent)
    return new / name


def _move(old: Path, folder: Path, names: Collection[Path]) -> None:
    """Of what is no file there cannot be two; a kill before it is moved loses a link or a pipe."""
    for name in names:
        target = _beside_ours(folder, name)
        if plain_files.what_is(target) is None:
            disk.make_folder(target.parent)
            disk.rename(old / name, target)


def _exchange(new: Path, folder: Path) -> None:
    if plain_files.what_is(folder) is None:
        disk.rename(new, folder)
        return
    try:
        operate("rename", lambda: _swap(new, folder), new, folder)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        old = disk.move_aside(folder, folder.parent)  # for a moment there is none
        disk.rename(new, folder)
        disk.rename(old, new)
    disk.sync_folder(folder.parent)


def _swap(one: Path, other: Path) -> None:
    """Two names of one file system change places, in one step."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other)) from None
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
