"""What a folder holds, file by file with size and sha256, and whether it still does: done.json and its like."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ablate.core import disk, file_digests, plain_files
from ablate.core.errors import StageError

MANIFEST = frozenset({"files", "content", "attempt"})
LEVELS = 2
"""A stage's folder and stages/ itself are folders, and no links to any."""
LISTED = frozenset({"size", "sha256"})
"""Fields of done.json, and of a file in it."""
Listing: TypeAlias = dict[str, dict[str, Any]]
"""Name of a file -> its `size` and `sha256`."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """-> done.json of a committed folder, whatever has become of the files; None when it is not what was written."""
    manifest = disk.read_sealed(folder / "done.json", MANIFEST) if plain_files.is_folder(folder, LEVELS) else None
    return manifest if manifest and manifest.keys() == MANIFEST and is_listing(manifest["files"]) else None


def sound_manifest(folder: Path) -> dict[str, Any] | None:
    """-> done.json of a committed folder, or None when something of the folder is not what was committed."""
    return read_manifest(folder) if damage_of(folder) is None else None


def damage_of(folder: Path) -> str | None:
    """-> the first thing that is not as it was committed, in words, or None; remembered digests count."""
    manifest = read_manifest(folder)
    if manifest is None:
        return why_no_manifest(folder)
    return next(misfits(folder, manifest["files"]), None)


def misfits(
    folder: Path, listing: Mapping[str, Any], sha256: Callable[[Path], str] = file_digests.sha256
) -> Iterator[str]:
    """-> how files of a folder differ from what is listed of them, in words; links are followed nowhere in it."""
    for name, listed in listing.items():
        if problem := _misfit_in(folder, name, listed, sha256):
            yield problem.removeprefix(f"{folder}/")


def _misfit_in(folder: Path, name: str, listed: Mapping[str, Any], sha256: Callable[[Path], str]) -> str | None:
    try:
        return plain_files.oddity(folder, name) or misfit(folder / name, listed, sha256)
    except OSError as error:
        return f"{folder / name} cannot be read: {error.strerror}"


def why_no_manifest(folder: Path) -> str:
    """-> what is wrong with a folder that `read_manifest` finds none in."""
    for place in (folder.parent, folder):
        if (what := plain_files.what_is(place)) not in ("a folder", None):
            return f"{place.name} is {what}, where a folder should be"
    return "done.json is not what was committed" if (folder / "done.json").exists() else "done.json lacks"


def sound(folder: Path, name: str) -> Path | None:
    """-> a file of a committed folder, where it is the one that was committed, whatever has become of the others."""
    listed = (read_manifest(folder) or {"files": {}})["files"].get(name)
    return folder / name if listed and _misfit_in(folder, name, listed, file_digests.sha256) is None else None


def read_sound(folder: Path, name: str) -> dict[str, Any]:
    """-> a JSON file of a committed folder; empty when it is not the one that was committed."""
    path = sound(folder, name)
    return disk.read_json(path) or {} if path else {}


# one file, one listing


def misfit(path: Path, listed: Mapping[str, Any], sha256: Callable[[Path], str] = file_digests.sha256) -> str | None:
    """-> how a file differs from the size and digest that are listed of it, or None.

    Digests of large files are taken as they are remembered, unless `sha256` is one that reads.
    """
    try:
        size = os.stat(path).st_size  # noqa: PTH116 (one call, thousands of files)
        if size != listed["size"]:
            size = plain_files.fresh_stat(path, follows=True).st_size  # as it grew when it was last looked at
        if size != listed["size"]:
            return f"{path} has {size:,} bytes, not {listed['size']:,}"
        return None if sha256(path) == listed["sha256"] else f"{path} has other content than was written"
    except FileNotFoundError:
        return f"{path} lacks"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def is_as_listed(path: Path, listed: Mapping[str, Any]) -> bool:
    """Whether a file that this process may have made has the size and digest of its listing."""
    return has_size(path, listed["size"]) and file_digests.sha256_once(path) == listed["sha256"]


def has_size(path: Path, size: int) -> bool:
    """Whether a plain file of this size lies there."""
    try:
        return plain_files.is_file(path) and size in (os.lstat(path).st_size, plain_files.fresh_stat(path).st_size)
    except OSError:
        return False


def is_listing(value: Any) -> bool:
    """Whether this lists size and sha256 of files by name."""
    return isinstance(value, dict) and all(isinstance(one, dict) and one.keys() == LISTED for one in value.values())


def listing_of(paths: Iterable[Path]) -> Listing:
    """-> small files by their names; what vanishes meanwhile is left out."""
    listing: Listing = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a killed worker's child is still at its last write
            data = plain_files.read_bytes(path)
            listing[path.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return listing


def durable_listing(folder: Path) -> Listing:
    """Makes every file and folder below a folder durable. -> the files but done.json, by their relative names.

    Raises StageError where there is something else.
    """
    listing: Listing = {}
    for path in sorted(folder.rglob("*")):
        if (what := plain_files.what_is(path)) not in ("a file", "a folder", None):
            raise StageError(f"{path.relative_to(folder)} is {what}: a result is made of files and folders alone")
        if plain_files.is_deleted_in_use(path.name):
            continue
        if path.is_file() and path != folder / "done.json":
            disk.sync_file(path)
            digest = file_digests.sha256_once(path)
            listing[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
        elif path.is_dir():
            disk.sync_folder(path)
    return listing
