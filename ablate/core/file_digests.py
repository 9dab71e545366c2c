"""sha256 of files, each read as seldom as can be trusted: large ones once a process, or once for all processes."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from ablate.core import disk, plain_files, written_digests

ONCE_A_PROCESS_BYTES = 1 << 24
"""From this size on `sha256_once` reads a file once."""
REMEMBERED_BYTES = 1 << 20
"""From this size on `sha256` is remembered on disk."""
MIN_AGE_S = 2.0
"""A file changed more recently may change again within one tick of its clock: its digest is not remembered. Its times
are of the machine whose disk it is on: where the clocks are apart, that it did not change while it was read counts."""

_once: dict[tuple[int, int, int, int], str] = {}
"""By device, inode, size and time: links are made from checkpoint to checkpoint, which changes the time of an inode."""


def sha256_once(path: Path) -> str:
    """In this process: for files that are made here, large ones linked from checkpoint to checkpoint, never changed.

    What this process wrote is not read at all.
    """
    stat = path.stat()
    if known := written_digests.known(stat):
        return known
    if stat.st_size < ONCE_A_PROCESS_BYTES:
        return _read_sha256(path)
    file = written_digests.as_left(stat)
    if file not in _once:
        _once[file] = _read_sha256(path)
    return _once[file]


def sha256(path: Path) -> str:
    """On disk: remembered for large files, by their size, times and inode."""
    stat = plain_files.fresh_stat(path, follows=True)
    if known := known_sha256(path):
        return known
    digest = _read_sha256(path)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > MIN_AGE_S and _is_still(path, stat):
        _remember(path, stat, digest)
    return digest


def known_sha256(path: Path) -> str | None:
    """-> what can be told without reading much: of a small file its digest, of a large one what is remembered."""
    stat = plain_files.fresh_stat(path, follows=True)
    if stat.st_size < REMEMBERED_BYTES:
        return _read_sha256(path)
    record = disk.read_sealed(_record_path(path), ())
    return str(record["sha256"]) if record and record["stamp"] == _stamp(stat) else None


def reread_sha256(path: Path) -> str:
    """Read from the disk to the last byte, whatever is remembered; what is remembered is put right."""
    stat = plain_files.fresh_stat(path, follows=True)
    digest = _read_sha256(path)
    _remember(path, stat, digest)
    return digest


def remember_sha256(path: Path, digest: str) -> None:
    """Keeps the digest of a large file that is not being changed; where it cannot, the file is hashed again."""
    with contextlib.suppress(OSError):
        _remember(path, path.stat(), digest)


def _remember(path: Path, stat: os.stat_result, digest: str) -> None:
    """`stat`: as it was before it was read."""
    if stat.st_size < REMEMBERED_BYTES:
        return
    with contextlib.suppress(OSError):
        record_path = _record_path(path)
        disk.make_folder(record_path.parent)
        disk.write_sealed(record_path, {"stamp": _stamp(stat), "sha256": digest})


def git_sha1(path: Path) -> str:
    """-> git's name for a file's content, by which the hub knows small files."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _read_sha256(path: Path) -> str:
    with plain_files.opened(path, follows=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_still(path: Path, stat: os.stat_result) -> bool:
    return _stamp(plain_files.fresh_stat(path, follows=True)) == _stamp(stat)


def _stamp(stat: os.stat_result) -> list[int]:
    """-> what changes with a file; not its device, which each machine that mounts a disk numbers for itself."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _record_path(path: Path) -> Path:
    return disk.user_cache() / "sha256" / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
