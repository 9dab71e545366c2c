"""The one seam that writes under runs/: whole files, renames, links and removals, each durable when it returns."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ablate.core import plain_files, shared_folders, temporary_files, tree_removal, written_digests
from ablate.core.disk_operations import explaining_full_disk, operate
from ablate.core.temporary_files import beside, sweep

WITHOUT_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
WITHOUT_FOLDER_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""How a file system says that it has no such thing for folders: what it does to names is as durable as it gets."""
LONGEST_ASIDE = 200
"""Characters of a name that is set aside."""
GATHERED_BYTES = 1 << 20
"""Smaller pieces of a file are gathered to about so many."""
SEAL = "seal"
"""The field of a sealed record that holds the digest of all the others."""


def write(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place: whoever opens the path sees the old content or the new, never a part."""
    with beside(path) as temporary:
        _write(temporary, data, is_durable=True)
        _rename(temporary, path)
    sync_folder(path.parent)


def create(path: Path, data: str, *, is_durable: bool = True) -> bool:
    """Puts a whole file in place unless there is one. -> False when another was first.

    Where it is not durable, it may be missed after a crash. Where the file system has no hard links, whoever opens the
    path may see a part for a moment.
    """
    with beside(path) as temporary:
        _write(temporary, data, is_durable=is_durable)
        is_first = _is_linked(temporary, path)
        temporary_files.unlink(temporary)
    if is_durable:
        sync_folder(path.parent)
    return is_first


def write_volatile(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place without waiting for the disk: for what nobody misses after a crash."""
    with beside(path) as temporary:
        _write(temporary, data, is_durable=False)
        _rename(temporary, path)


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

    with explaining_full_disk(path, len(raw)):
        return operate("append", act, path)


def opened_to_append(path: Path) -> IO[bytes]:
    """-> a file that other programs can write to. Raises OSError where a link, a pipe or a device has its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    if plain_files.what_is(path) not in ("a file", None):
        raise plain_files.NoPlainFile(errno.ENOENT, "it is no ordinary file", str(path))
    return os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview], num_bytes: int) -> None:
    """Writes a file of so many bytes piece by piece, in a folder that counts only once it is committed as a whole.

    Its digest is known then; see `written_digests`.
    """
    with explaining_full_disk(path, num_bytes):
        digest = operate("write", lambda: _filled(path.open("wb"), pieces), path)
        sync_file(path)
    written_digests.note(path.stat(), num_bytes, digest)


def _filled(file: IO[bytes], pieces: Iterable[bytes | memoryview]) -> str:
    """Writes pieces to a file, and closes it. -> their sha256."""
    hasher = hashlib.sha256()
    with file:
        for piece in _gathered(pieces):
            file.write(piece)
            hasher.update(piece)
    return hasher.hexdigest()


def _gathered(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | bytearray | memoryview]:
    """-> the same bytes; small pieces come several at a time."""
    small = bytearray()
    for piece in pieces:
        if len(piece) < GATHERED_BYTES:
            small += piece
            piece = b""
        if small and (piece or len(small) >= GATHERED_BYTES):
            yield small
            small = bytearray()
        if piece:
            yield piece
    if small:
        yield small


def copy(source: Path, target: Path) -> None:
    """Copies a file, whole when it is there."""
    write(target, plain_files.read_bytes(source, most=None))


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless they are there."""
    if not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            make_new_folder(path)


def make_new_folder(path: Path) -> None:
    """Makes a folder in one that is there. Raises FileExistsError when another was first."""
    with explaining_full_disk(path, 0):
        operate("mkdir", path.mkdir, path)
    sync_folder(path.parent)


def _is_linked(temporary: Path, path: Path) -> bool:
    """Gives a file its name unless that is taken."""
    try:
        operate("link", lambda: os.link(temporary, path), temporary, path)
    except FileExistsError:  # over NFS a link that was made may be answered so, when the question was sent twice
        return temporary.stat().st_nlink > 1 or _is_at(path, temporary.lstat())
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        return _is_new(path, temporary.read_bytes())
    return True


def _is_new(path: Path, raw: bytes) -> bool:
    """Makes a file of its own, where links are not to be had."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        operate("write", lambda: file.write(raw), path)
    sync_file(path)
    return True


def _rename(source: Path, target: Path) -> None:
    """Over NFS a rename that was done may be answered with "no such file", when the question was sent twice."""
    before = source.lstat()
    try:
        operate("rename", lambda: source.rename(target), source, target)
    except FileNotFoundError:
        shared_folders.look_afresh(target.parent)
        if not _is_at(target, before):
            raise


def _is_at(path: Path, stat: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), stat)
    except OSError:
        return False


def _write(path: Path, data: bytes | str, *, is_durable: bool) -> None:
    raw = _raw(data)
    with explaining_full_disk(path, len(raw)):
        operate("write", lambda: path.write_bytes(raw), path)
        if is_durable:
            sync_file(path)
    if is_durable and len(raw) >= written_digests.LEAST_BYTES:
        written_digests.note(path.stat(), len(raw), hashlib.sha256(raw).hexdigest())


def _raw(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, most: int | None = plain_files.MOST_BYTES) -> Any | None:
    """-> the value, or None when the file is missing, torn or empty, no ordinary file, or larger than `most`."""
    try:
        return json.loads(plain_files.read_bytes(path, most))
    except (OSError, ValueError, RecursionError):
        return None


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Writes a record with its own digest in it, so that no byte of it can change unnoticed."""
    write(path, json_text(record | {SEAL: _seal(record)}))


def create_sealed(path: Path, record: dict[str, Any]) -> bool:
    """Writes a record with its own digest in it unless there is a file. -> False when another was first."""
    return create(path, json_text(record | {SEAL: _seal(record)}))


def read_sealed(path: Path, fields: Collection[str]) -> dict[str, Any] | None:
    """-> the record without its seal; None when it is missing, torn, or another than was written.

    One without a seal, of an earlier version, counts when it has no field but `fields`.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        return None
    seal = record.pop(SEAL, None)
    is_whole = record.keys() <= set(fields) if seal is None else seal == _seal(record)
    return record if is_whole else None


def json_text(value: Any) -> str:
    """-> JSON as it is written under runs/, in the order of the value."""
    return json.dumps(value, indent=1) + "\n"


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Makes a file's content durable. One that fails is never asked again: what was to be written may be lost."""
    with path.open("rb") as file:
        operate("fsync", lambda: os.fsync(file.fileno()), path)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        operate("fsync_folder", lambda: os.fsync(handle), path)
    except OSError as error:
        if error.errno not in WITHOUT_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Moves a file or folder within one file system. Raises OSError when the target is a folder that is not empty."""
    with explaining_full_disk(target, 0):
        _rename(source, target)
    for folder in dict.fromkeys((target.parent, source.parent)):  # or it could be found at both places
        sync_folder(folder)


def link(source: Path, target: Path) -> None:
    """A second name for a file (a copy where the file system has no hard links)."""
    try:
        with explaining_full_disk(target, 0):
            operate("link", lambda: os.link(source, target), source, target)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        copy(source, target)


def touch(path: Path) -> None:
    """Notes that a file was used now, where that is possible."""
    with contextlib.suppress(OSError):
        operate("touch", lambda: os.utime(path), path)


def unlink(path: Path) -> None:
    """Removes a file, and what a writer of it left that was killed; one that is not there was wanted gone."""
    if path.parent.is_dir():
        sweep(path)
        temporary_files.unlink(path)


def remove_empty(path: Path) -> None:
    """Removes a folder with nothing in it. Raises OSError where there is something."""
    operate("rmdir", path.rmdir, path)


def remove_tree(path: Path) -> None:
    """Removes a folder, or what has its name; what a link leads to stays. What vanishes meanwhile was wanted gone."""
    with contextlib.suppress(FileNotFoundError):
        if plain_files.what_is(path) in ("a folder", None):
            operate("remove", lambda: tree_removal.remove(path), path)
        else:
            temporary_files.unlink(path)


def let_owner_in(folder: Path) -> None:
    """Gives a folder a mode in which its owner can work in it."""
    operate("chmod", lambda: folder.chmod(stat.S_IMODE(folder.lstat().st_mode) | stat.S_IRWXU), folder)


def move_aside(path: Path, folder: Path) -> Path:
    """Renames whatever has a name to the first free `NAME.<n>` in a folder of the same file system. -> the new name.

    Raises FileNotFoundError when it has vanished.
    """
    name = plain_files.shown(path.name)[:LONGEST_ASIDE]
    free = (folder / f"{name}.{number}" for number in itertools.count(1))
    target = next(place for place in free if plain_files.what_is(place) is None)
    try:
        rename(path, target)
    except PermissionError:  # a folder of a mode that lets nobody in: its own entry for .. is to be changed
        if plain_files.what_is(path) != "a folder":
            raise
        let_owner_in(path)
        rename(path, target)
    return target


def files_below(path: Path) -> Iterator[Path]:
    """-> everything but folders in a folder and those in it, in order; what vanishes meanwhile is left out."""
    return (entry.path for entry in plain_files.below(path))


def user_cache() -> Path:
    """-> the folder for what can be made again: $XDG_CACHE_HOME/ablate, or ~/.cache/ablate; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ablate"
