"""What local files hold, as digests; large files are hashed once."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.values import digest

MIN_AGE_S = 2.0
"""A file changed more recently may change again within one tick of its clock: its digest is not remembered."""
_LARGE = 1 << 20


def local_digest(path: Path) -> str:
    """-> sha256 of a file, or of the names and contents of a folder; what is hidden does not count.

    Raises AblateError when there is nothing.
    """
    return of(path, digests(path, names(path)))


def names(path: Path) -> list[str]:
    """-> the files below a folder, sorted, hidden ones and Python's caches left out; a file is its own name."""
    if path.is_file():
        return [path.name]
    found = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    kept = sorted(file.as_posix() for file in found if not any(map(_is_hidden, file.parts)))
    if not kept:
        raise AblateError(f"{path}: " + ("no file in it" if path.is_dir() else "no such file or folder"))
    return kept


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"


def digests(
    path: Path, names: Sequence[str], tell: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """-> relative name -> sha256, for files of a folder (or one file); `tell` hears of bytes done and in all."""
    files = {name: path if path.is_file() else path / name for name in names}
    total = sum(file.stat().st_size for file in files.values())
    found, done = {}, 0
    for name, file in files.items():
        found[name] = sha256(file)
        done += file.stat().st_size
        tell(done, total)
    return found


def changed(path: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """-> the first file that is gone, holds something else or was added since a fetch's manifest, or None."""
    for name, said in files.items():
        file = path if path.is_file() else path / name
        if not file.is_file() or sha256(file) != said["sha256"]:
            return name
    return next((name for name in names(path) if name not in files), None)


def of(path: Path, digests: dict[str, str]) -> str:
    """-> the one digest of a file or folder, from those of its files."""
    return next(iter(digests.values())) if path.is_file() else digest(digests)


def sha256(path: Path) -> str:
    """Remembered for large files, by their size, times and inode."""
    stat = path.stat()
    if known := known_sha256(path):
        return known
    found = _read(path)
    if time.time() - max(stat.st_mtime, stat.st_ctime) > MIN_AGE_S:
        remember(path, found)
    return found


def known_sha256(path: Path) -> str | None:
    """-> what can be told without reading much: of a small file its digest, of a large one what is remembered."""
    stat = path.stat()
    if stat.st_size < _LARGE:
        return _read(path)
    saved = disk.read_sealed(_kept(path), ())
    return str(saved["sha256"]) if saved and saved["stamp"] == _stamp(stat) else None


def read_sha256(path: Path) -> str:
    """Read from the disk to the last byte, whatever is remembered; what is remembered is put right."""
    found = _read(path)
    remember(path, found)
    return found


def remember(path: Path, sha256: str) -> None:
    """Keeps the digest of a large file that is not being changed; where it cannot, the file is hashed again."""
    with contextlib.suppress(OSError):
        stat, kept = path.stat(), _kept(path)
        if stat.st_size < _LARGE:
            return
        disk.make_folder(kept.parent)
        disk.write_sealed(kept, {"stamp": _stamp(stat), "sha256": sha256})


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _kept(path: Path) -> Path:
    return disk.user_cache() / "sha256" / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
