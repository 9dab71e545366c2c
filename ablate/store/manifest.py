"""A committed folder: what done.json says of its files, and whether they are still what was committed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.core import disk, hashing

MANIFEST = frozenset({"files", "content", "attempt"})
LISTED = frozenset({"size", "sha256"})
"""Fields of done.json, and of a file in it."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """-> done.json of a committed folder, whatever has become of the files; None when it is not what was written."""
    manifest = disk.read_sealed(folder / "done.json", MANIFEST)
    return manifest if manifest and manifest.keys() == MANIFEST and is_listing(manifest["files"]) else None


def sound_manifest(folder: Path) -> dict[str, Any] | None:
    """-> done.json of a committed folder, or None when something of the folder is not what was committed."""
    return read_manifest(folder) if damage_of(folder) is None else None


def damage_of(folder: Path, sha256: Callable[[Path], str] = hashing.sha256) -> str | None:
    """-> the first thing that is not as it was committed, in words, or None.

    Digests of large files are taken as they are remembered, unless `sha256` is one that reads.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return "done.json is not what was committed" if (folder / "done.json").exists() else "done.json lacks"
    told = (misfit(folder / name, of, sha256) for name, of in manifest["files"].items())
    why = next(filter(None, told), None)
    return why and why.removeprefix(f"{folder}/")


def sound(folder: Path, name: str) -> Path | None:
    """-> a file of a committed folder, where it is the one that was committed, whatever has become of the others."""
    of = (read_manifest(folder) or {"files": {}})["files"].get(name)
    return folder / name if of and misfit(folder / name, of) is None else None


def read_sound(folder: Path, name: str) -> dict[str, Any]:
    """-> a JSON file of a committed folder; empty when it is not the one that was committed."""
    path = sound(folder, name)
    return disk.read_json(path) or {} if path else {}


def misfit(path: Path, of: dict[str, Any], sha256: Callable[[Path], str] = hashing.sha256) -> str | None:
    """-> how a file differs from the size and digest that are said of it, or None."""
    try:
        size = os.stat(path).st_size  # noqa: PTH116 (one call, thousands of files)
        if size != of["size"]:
            return f"{path} has {size:,} bytes, not {of['size']:,}"
        return None if sha256(path) == of["sha256"] else f"{path} has other content than was written"
    except FileNotFoundError:
        return f"{path} lacks"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def is_listing(files: Any) -> bool:
    """Whether this says size and sha256 of files by name."""
    return isinstance(files, dict) and all(isinstance(of, dict) and of.keys() == LISTED for of in files.values())
