"""runs/studies/<name>/: a study as it was run last, and under every other set of overrides that it was run with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.core.values import Json, digest

FIELDS = frozenset(
    {
        "study",
        "source",
        "overrides",
        "pins",
        "bases",
        "digests",
        "contents",
        "num_rows",
        "speeds",
        "text",
        "files",
        "root",
    }
)
"""Of a study's record."""
MAX_VARIANTS = 200
"""Kept of one study; of more, those that were run longest ago are not kept any more."""


def read(path: Path) -> dict[str, Any] | None:
    """-> a record, or None when there is none, or none that can be trusted."""
    return disk.read_sealed(path, FIELDS)


def last(folder: Path) -> Path:
    """-> the file that holds a study as it was run last."""
    return folder / "study.json"


def others(folder: Path) -> list[Path]:
    """-> the files that hold it as it was run with other overrides, or from another file; oldest first."""
    records = (path for path in (folder / "variants").glob("*.json") if plain_files.is_file(path))
    return sorted(records, key=_age)


def write(folder: Path, record: dict[str, Json]) -> None:
    """Keeps a study as it is run now; what was recorded of it with other overrides stays beside."""
    before = read(last(folder))
    if before and variant_of(before) != variant_of(record):
        disk.make_folder(folder / "variants")
        disk.write_sealed(_place(folder, before), before)
    # in the order of the study file: the first pair is the default, and tables follow the order of the axes
    disk.write_sealed(last(folder), record)
    for path in _superseded(folder, record):
        disk.unlink(path)


def variant_of(record: dict[str, Any]) -> str:
    """-> a digest of what a study was run from: a file, and overrides."""
    return digest([record.get("source"), record.get("overrides")])


def _place(folder: Path, record: dict[str, Any]) -> Path:
    return folder / "variants" / f"{variant_of(record)[:12]}.json"


def _superseded(folder: Path, record: dict[str, Json]) -> Iterator[Path]:
    """-> records of what is now the last one: of the same overrides, from the same file or from one that is gone."""
    paths = others(folder)
    num_too_many = max(0, len(paths) - MAX_VARIANTS)
    for index, path in enumerate(paths):
        other = read(path) or {}
        is_again = other.get("overrides") == record.get("overrides") and _is_same_file(other, record)
        if index < num_too_many or is_again or path == _place(folder, record):
            yield path


def _is_same_file(other: dict[str, Any], record: dict[str, Any]) -> bool:
    source = other.get("source")
    return source == record.get("source") or not (source and Path(source).is_file())


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
