"""The one seam that writes under runs/: whole files, renames, links and removals, each durable when it returns."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
WITHOUT_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _at_once(name: str, paths: tuple[Path, ...], act: Callable[[], Any]) -> Any:
    return act()


around = _at_once
"""Every operation goes through here: tests put what fails, or kills, in its place."""


def _do(name: str, act: Callable[[], T], *paths: Path) -> T:
    made: T = around(name, paths, act)
    return made


SEAL = "seal"
"""The field of a sealed record that holds the digest of all the others."""


def write(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place: whoever opens the path sees the old content or the new, never a part."""
    with _beside(path) as beside:
        _write(beside, data, is_durable=True)
        _do("rename", lambda: beside.rename(path), beside, path)
    sync_folder(path.parent)


def create(path: Path, data: str) -> bool:
    """Puts a whole file in place unless there is one. -> False when another was first."""
    with _beside(path) as beside:
        _write(beside, data, is_durable=True)
        is_first = _is_linked(beside, path)
        _unlink(beside)
    sync_folder(path.parent)
    return is_first


def write_volatile(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place without waiting for the disk: for what nobody misses after a crash."""
    with _beside(path) as beside:
        _write(beside, data, is_durable=False)
        _do("rename", lambda: beside.rename(path), beside, path)


def append(path: Path, data: bytes | str) -> int:
    """Adds to the end of a file without waiting for the disk: all of it or nothing. -> its size.

    A disk that fills up takes a part and says no word of it; half a line would hide all lines behind it.
    """
    raw = _raw(data)

    def act() -> int:
        with opened_to_append(path) as file:
            size = file.tell()
            if file.write(raw) != len(raw):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return file.tell()

    with _told(path, len(raw)):
        return _do("append", act, path)


def opened_to_append(path: Path) -> IO[bytes]:
    """-> a file that other programs can write to."""
    return path.open("ab", buffering=0)


def write_with(path: Path, num_bytes: int, save: Callable[[Path], object]) -> None:
    """Has a library write a file of about so many bytes, in a folder that counts only once it is committed as a whole.

    Raises OSError where the library says so in words of its own.
    """
    with _told(path, num_bytes):
        _do("write", lambda: _saved(path, save), path)


def copy(source: Path, target: Path) -> None:
    """Copies a file, whole when it is there."""
    write(target, source.read_bytes())


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless they are there."""
    if not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            make_new_folder(path)


def make_new_folder(path: Path) -> None:
    """Makes a folder in one that is there. Raises FileExistsError when another was first."""
    with _told(path, 0):
        _do("mkdir", path.mkdir, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """-> where a file is written before it is put in place; in the end nothing of it is left."""
    _sweep(path)
    beside = path.with_name(f".{path.name}.{_place()}.{os.getpid()}")
    try:
        yield beside
    except BaseException:
        with contextlib.suppress(OSError):
            _unlink(beside)
        raise


def _is_linked(beside: Path, path: Path) -> bool:
    """Gives a file its name unless that is taken."""
    try:
        _do("link", lambda: os.link(beside, path), beside, path)
    except FileExistsError:
        return beside.stat().st_nlink > 1  # over NFS a link that was made may be answered with "exists"
    return True


def _sweep(path: Path) -> None:
    """Removes what writers of this file left that were killed: a process of another machine may live."""
    leftover = re.compile(re.escape(f".{path.name}.{_place()}.") + r"(\d+)")
    for name in os.listdir(path.parent):  # noqa: PTH208 (one call, before every write)
        found = leftover.fullmatch(name)
        if found and not Path("/proc", found[1]).exists():
            _unlink(path.parent / name)


@functools.cache
def _place() -> str:
    """-> where a pid means one process: this machine, or this container."""
    namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _write(path: Path, data: bytes | str, *, is_durable: bool) -> None:
    raw = _raw(data)
    with _told(path, len(raw)):
        _do("write", lambda: path.write_bytes(raw), path)
        if is_durable:
            sync_file(path)


def _unlink(path: Path) -> None:
    _do("unlink", lambda: path.unlink(missing_ok=True), path)


def _raw(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _saved(path: Path, save: Callable[[Path], object]) -> None:
    try:
        save(path)
    except OSError:
        raise
    except Exception as error:
        said = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has no OSError
        if said is None:
            raise
        raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error


@contextlib.contextmanager
def _told(path: Path, num_bytes: int) -> Iterator[None]:
    """Says of a full disk what was wanted, what is free, and what makes room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        words = f"{num_bytes:,} bytes were to be written, {free:,} are free; `ablate gc` may make room"
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({words})", str(path)) from error


def write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any | None:
    """-> the value, or None when the file is missing, torn or empty."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Writes a record with its own digest in it, so that no byte of it can change unnoticed."""
    write(path, json_text(record | {SEAL: _seal(record)}))


def read_sealed(path: Path, fields: Collection[str]) -> dict[str, Any] | None:
    """-> the record without its seal; None when it is missing, torn, or another than was written.

    One without a seal, of an earlier version, counts when it has no field but `fields`.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        return None
    seal = found.pop(SEAL, None)
    is_whole = found.keys() <= set(fields) if seal is None else seal == _seal(found)
    return found if is_whole else None


def json_text(value: Any) -> str:
    """-> JSON as it is written under runs/, in the order of the value."""
    return json.dumps(value, indent=1) + "\n"


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Makes a file's content durable. One that fails is never asked again: what was to be written may be lost."""
    with path.open("rb") as file:
        _do("fsync", lambda: os.fsync(file.fileno()), path)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _do("fsync_folder", lambda: os.fsync(handle), path)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Moves a file or folder within one file system. Raises OSError when the target is a folder that is not empty."""
    with _told(target, 0):
        _do("rename", lambda: source.rename(target), source, target)
    for folder in dict.fromkeys((target.parent, source.parent)):  # or it could be found at both places
        sync_folder(folder)


def link(source: Path, target: Path) -> None:
    """A second name for a file (a copy where the file system has no hard links)."""
    try:
        with _told(target, 0):
            _do("link", lambda: os.link(source, target), source, target)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        copy(source, target)


def touch(path: Path) -> None:
    """Notes that a file was used now, where that is possible."""
    with contextlib.suppress(OSError):
        _do("touch", lambda: os.utime(path), path)


def unlink(path: Path) -> None:
    """Removes a file, and what a writer of it left that was killed; one that is not there was wanted gone."""
    if path.parent.is_dir():
        _sweep(path)
        _unlink(path)


def remove_empty(path: Path) -> None:
    """Removes a folder with nothing in it. Raises OSError where there is something."""
    _do("rmdir", path.rmdir, path)


def remove_tree(path: Path) -> None:
    """Removes a folder; what vanishes meanwhile was wanted gone."""
    with contextlib.suppress(FileNotFoundError):
        _do("remove", lambda: shutil.rmtree(path), path)


def files_below(path: Path) -> Iterator[Path]:
    """-> every file in a folder and the folders in it, in order; what vanishes meanwhile is left out."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def user_cache() -> Path:
    """-> the folder for what can be made again: $XDG_CACHE_HOME/ablate, or ~/.cache/ablate; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ablate"
