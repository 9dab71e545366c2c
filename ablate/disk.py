"""The one seam that writes under runs/: whole files, renames, links and removals, each durable when it returns."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

SEAL = "seal"
"""The field of a sealed record that holds the digest of all the others."""


def write(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place: whoever opens the path sees the old content or the new, never a part."""
    raw = data.encode() if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)


def create(path: Path, data: str) -> bool:
    """Puts a whole file in place unless there is one. -> False when another was first."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    write(beside, data)
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        unlink(beside)
    sync_folder(path.parent)
    return True


def tell(path: Path, data: bytes | str) -> None:
    """Puts a whole file in place without waiting for the disk: for what nobody misses after a crash."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data.encode() if isinstance(data, str) else data)
    beside.rename(path)


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
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Moves a file or folder within one file system. Raises OSError when the target is a folder that is not empty."""
    source.rename(target)
    sync_folder(target.parent)


def link(source: Path, target: Path) -> None:
    """A second name for a file (a copy where the file system has no hard links)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def touch(path: Path) -> None:
    """Notes that a file was used now, where that is possible."""
    with contextlib.suppress(OSError):
        os.utime(path)


def unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a folder; what vanishes meanwhile was wanted gone."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def files_below(path: Path) -> Iterator[Path]:
    """-> every file in a folder and the folders in it, in order; what vanishes meanwhile is left out."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def user_cache() -> Path:
    """-> the folder for what can be made again: $XDG_CACHE_HOME/ablate, or ~/.cache/ablate; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ablate"
