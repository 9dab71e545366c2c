"""Size and sha256 of the files of a folder, as manifests list them; large ones are read once a process."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ablate.core import disk

LARGE = 1 << 24

_digests: dict[tuple[int, int, int, int], str] = {}
"""Of large files, by device, inode, size and time."""


def digests_of(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a killed worker's child is still at its last write
            data = path.read_bytes()
            yield path.name, {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def digested(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Every file below a folder, made durable: (relative name, size, sha256)."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / "done.json":
            disk.sync_file(path)
            yield path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)
        elif path.is_dir():
            disk.sync_folder(path)


def _sha256(path: Path) -> str:
    """Large files, which are linked from checkpoint to checkpoint and never changed, are read once a process."""
    of = path.stat()
    if of.st_size < LARGE:
        return _read_sha256(path)
    known = (of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns)
    if known not in _digests:
        _digests[known] = _read_sha256(path)
    return _digests[known]


def _read_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_as_listed(path: Path, of: dict[str, Any]) -> bool:
    return _has(path, of["size"]) and _sha256(path) == of["sha256"]


def _has(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size  # noqa: PTH116 (one call, thousands of files)
    except OSError:
        return False
