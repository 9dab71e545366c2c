"""What a file or folder of the user's holds, as digests: of each file in it, and one of them all."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ablate.core.errors import AblateError
from ablate.core.file_digests import sha256
from ablate.core.values import digest


def local_digest(path: Path) -> str:
    """-> sha256 of a file, or of the names and contents of a folder; what is hidden does not count.

    Raises AblateError when there is nothing.
    """
    return combined_digest(path, file_digests(path, visible_files(path)))


def visible_files(path: Path) -> list[str]:
    """-> the files below a folder, sorted, hidden ones and Python's caches left out; a file is its own name.

    Raises AblateError when there is none.
    """
    if path.is_file():
        return [path.name]
    files = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    names = sorted(file.as_posix() for file in files if is_counted(file))
    if not names:
        raise AblateError(f"{path}: " + ("no file in it" if path.is_dir() else "no such file or folder"))
    return names


def is_counted(name: PurePath) -> bool:
    """Whether a file below a folder counts in the folder's digest: hidden ones and Python's caches do not."""
    return not any(part.startswith(".") or part == "__pycache__" for part in name.parts)


def first_uncounted(names: Iterable[str], folder: Path) -> str | None:
    """-> the first of some files that a folder's digest does not hold: elsewhere, behind a linked folder, or hidden."""
    home = Path(os.path.realpath(folder))
    for name in names:
        file = Path(os.path.realpath(Path(name).parent)) / Path(name).name
        is_here = "://" not in name and "::" not in name and home in file.parents
        if not is_here or not is_counted(file.relative_to(home)):
            return name
    return None


def file_digests(
    path: Path, names: Sequence[str], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """-> relative name -> sha256, for files of a folder (or one file); `on_progress` hears of bytes done and in all."""
    files = {name: path if path.is_file() else path / name for name in names}
    total = sum(file.stat().st_size for file in files.values())
    digests, done = {}, 0
    for name, file in files.items():
        digests[name] = sha256(file)
        done += file.stat().st_size
        on_progress(done, total)
    return digests


def combined_digest(path: Path, digests: Mapping[str, str]) -> str:
    """-> the one digest of a file or folder, from those of its files."""
    return next(iter(digests.values())) if path.is_file() else digest(digests)


def first_change(path: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """-> the first file that is gone, holds something else or was added since a fetch's manifest, or None."""
    for name, listed in files.items():
        file = path if path.is_file() else path / name
        if not file.is_file() or sha256(file) != listed["sha256"]:
            return name
    return next((name for name in visible_files(path) if name not in files), None)
