"""Looking at a disk without following a link, waiting for a pipe or reading a device: none of them is ours."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 32 << 20
"""Of a record that is read as a whole: ours are far smaller, and a damaged one may be as large as it likes."""
DEEPEST = 16
"""Folders in folders: ours go half as deep."""
NOTHING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""How a system says that nothing can be there."""
_IN_USE = re.compile(r"\.nfs[0-9a-f]{8,}|\.fuse_hidden[0-9a-f]{8,}")
_WORDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_deleted_in_use(name: str) -> bool:
    """Whether a file has the name of one that is deleted while a process has it open, until that closes it: over NFS
    and FUSE it is renamed so, and no part of its folder any more.
    """
    return _IN_USE.fullmatch(name) is not None


class NoPlainFile(FileNotFoundError):
    """There is something of the name, but no ordinary file."""


class Entry(NamedTuple):
    """Something in a folder."""

    path: Path
    what: str
    """a file, a folder, a link, a pipe, a socket, a device."""


def what_is(path: Path, *, follows: bool = False) -> str | None:
    """-> "a file", "a folder", "a link", "a pipe", "a socket", "a device"; None where there is nothing of the name."""
    try:
        mode = os.stat(path, follow_symlinks=follows).st_mode  # noqa: PTH116 (thousands of files)
    except OSError as error:
        if error.errno in NOTHING:
            return None
        if error.errno == errno.EACCES:
            return "nothing that can be looked at"
        raise
    return _WORDS.get(stat.S_IFMT(mode), "nothing known")


def is_file(path: Path) -> bool:
    """Whether it is an ordinary file, and no link to one."""
    try:
        return what_is(path) == "a file"
    except OSError:
        return False


def is_folder(path: Path, levels: int = 1) -> bool:
    """Whether it is a folder and no link to one; so are those above it, where `levels` of them are looked at in all."""
    try:
        places = (path, *path.parents)[:levels]
        return all(what_is(place) == "a folder" for place in places)
    except OSError:
        return False


def oddity(folder: Path, name: str) -> str | None:
    """-> what keeps `folder/name` from being a file in folders, in words; None where nothing does, or it lacks.

    `folder` itself is not looked at.
    """
    place, parts = folder, Path(name).parts
    for part in parts[:-1]:
        place /= part
        if (what := what_is(place)) not in ("a folder", None):
            return f"{place.relative_to(folder)} is {what}, where a folder should be"
    what = what_is(folder / name)
    return f"{name} is {what}, where a file should be" if what not in ("a file", None) else None


def opened(path: Path, *, follows: bool = False) -> BufferedReader:
    """-> an ordinary file, to be read; what a link leads to only where `follows`.

    Raises NoPlainFile for anything else. Nothing but an ordinary file is opened: of a device that may be an order.
    """
    try:
        return _opened(path, follows)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return _opened(path, follows)  # another machine has put another file in its place between the two looks at it


def _opened(path: Path, follows: bool) -> BufferedReader:
    _require_plain(os.stat(path, follow_symlinks=follows), path)  # noqa: PTH116 (thousands of files)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follows else os.O_NOFOLLOW))
    try:
        _require_plain(os.fstat(handle), path)  # it may have been replaced meanwhile
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require_plain(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = _WORDS.get(stat.S_IFMT(status.st_mode), "nothing known")
        raise NoPlainFile(2, f"it is {what}, where a file should be", str(path))


def fresh_stat(path: Path, *, follows: bool = False) -> os.stat_result:
    """-> size, times and the like of an ordinary file as they are now: over NFS those of a file that is not opened may
    be a minute old. Raises as `opened` does.
    """
    with opened(path, follows=follows) as file:
        return os.fstat(file.fileno())


def read_bytes(path: Path, most: int | None = MOST_BYTES, *, follows: bool = False) -> bytes:
    """-> all of an ordinary file. Raises NoPlainFile for anything else, and for one of more bytes than `most`."""
    with opened(path, follows=follows) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise NoPlainFile(2, f"it has {size:,} bytes, where a record should be", str(path))
        return file.read()


def read_text(path: Path) -> str:
    """-> a short text; what is not UTF-8 shows."""
    return read_bytes(path).decode(errors="replace")


def entries(base: Path, *names: str) -> list[Entry]:
    """-> what lies in `base/names...`, by name; nothing where one of these is a link, or no folder, or cannot be read.

    `base` may be a link.
    """
    folder = base.joinpath(*names)
    if not is_folder(folder, len(names)):
        return []
    try:
        return listed(folder)
    except OSError:
        return []


def listed(folder: Path) -> list[Entry]:
    """-> what lies in a folder, by name. Raises OSError where it cannot be read."""
    with os.scandir(folder) as inside:
        return sorted(Entry(folder / one.name, _what(one)) for one in inside)


def _what(entry: "os.DirEntry[str]") -> str:
    if entry.is_dir(follow_symlinks=False):
        return "a folder"
    if entry.is_file(follow_symlinks=False):
        return "a file"
    return what_is(Path(entry.path)) or "nothing known"


def below(folder: Path, depth: int = DEEPEST) -> Iterator[Entry]:
    """-> everything in a folder that is no folder, and in the folders in it, in order; folders that cannot be read,
    and those deeper than `depth`, as they are. What vanishes meanwhile is left out.
    """
    try:
        inside = listed(folder)
    except FileNotFoundError:
        return
    except OSError:
        yield Entry(folder, "a folder")
        return
    yield from (one for one in inside if one.what != "a folder")
    for one in inside:
        if one.what == "a folder" and depth > 0:
            yield from below(one.path, depth - 1)
        elif one.what == "a folder":
            yield one


def shown(path: Path | str) -> str:
    """-> a name that may be any bytes, on one line."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
