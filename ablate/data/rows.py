"""Rows as their source has them: from a file on this disk, or a fetched data set folder read offline."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from ablate.core.errors import StageError, did_you_mean
from ablate.study.data_settings import COLUMNS, Data

Row: TypeAlias = dict[str, Any]

OPTIONAL = ("input",)
MOST_LINES_BYTES, MOST_PARSED_BYTES = 200_000_000, 50_000_000
"""Files up to here are counted while a person waits for a plan: a second or two."""


def read(path: Path, data: Data) -> list[Row]:
    """-> the rows of the data's split, `limit` applied, with the columns named as `COLUMNS` names them.

    Raises StageError for a file that cannot be read, an unknown split or configuration, or a column that is missing.
    """
    rows = _read_file(path, data) if path.is_file() else _read_folder(path, data)
    if not rows:
        raise StageError(f"{data.source}: no rows in split {data.split!r}")
    names = _column_names(rows[0], data)
    return [{ours: row.get(theirs) for ours, theirs in names.items()} for row in rows]


def num_rows_in(path: Path) -> int | None:
    """-> how many rows a data file has; None where that takes long to tell, or it cannot be read."""
    counter = _COUNTERS.get(path.suffix.lower())
    if counter is None or not path.is_file():
        return None
    stat = path.stat()
    most = MOST_PARSED_BYTES if counter in (_count_json, _count_csv) else MOST_LINES_BYTES
    return _counted(path, stat.st_mtime_ns, stat.st_size) if stat.st_size <= most else None


@lru_cache(maxsize=16)
def _counted(path: Path, changed_at: int, size: int) -> int | None:
    try:
        return _COUNTERS[path.suffix.lower()](path)
    except (ValueError, OSError, csv.Error):
        return None  # the stage that reads it tells why


def _column_names(row: Row, data: Data) -> dict[str, str]:
    """-> our name of a column -> its name in the data."""
    ours = COLUMNS[data.format]
    for name in data.columns:
        if name not in ours:
            raise StageError(f"data.columns: format {data.format} has no column {name!r}.{did_you_mean(name, ours)}")
    names = {name: data.columns.get(name, name) for name in ours}
    for name, theirs in names.items():
        if theirs not in row and (name not in OPTIONAL or name in data.columns):
            raise StageError(
                f"{data.source}: there is no column {theirs!r} for format {data.format}.{did_you_mean(theirs, row)} "
                f"Say which one it is with data.columns: {{{name}: ...}}"
            )
    return names


def _read_file(path: Path, data: Data) -> list[Row]:
    if data.split != "train":
        raise StageError(f"data.split: {path.name} is one file and has only the split train, got {data.split!r}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StageError(f"{path}: rows are read from {', '.join(sorted(_READERS))}, not from {path.suffix or 'this'}")
    try:
        rows = reader(path)
    except (ValueError, OSError, csv.Error) as error:
        raise StageError(f"{path}: cannot be read as {path.suffix.lower()}: {error}") from error
    bad = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if bad is not None:
        raise StageError(f"{path}: row {bad} is no mapping of columns to values")
    return rows[: data.limit]


def _read_json(path: Path) -> list[Row]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        value = next((inner for inner in value.values() if isinstance(inner, list)), value)
    if not isinstance(value, list):
        raise ValueError("a list of rows is expected")  # noqa: TRY004 (told like every unreadable file)
    return value


def _read_jsonl(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_parquet(path: Path) -> list[Row]:
    from pyarrow.parquet import read_table  # type: ignore[import-untyped]

    return list(read_table(path).to_pylist())


_READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _count_json(path: Path) -> int:
    return len(_read_json(path))


def _count_jsonl(path: Path) -> int:
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def _count_csv(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def _count_parquet(path: Path) -> int:
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


_COUNTERS = {".json": _count_json, ".jsonl": _count_jsonl, ".csv": _count_csv, ".parquet": _count_parquet}


def _read_folder(path: Path, data: Data) -> list[Row]:
    """A data set folder, such as a hub snapshot, read by `datasets` without the network."""
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(str(path), name=data.config, split=data.split)
    except (ValueError, OSError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise StageError(f"{data.source} (config {data.config}, split {data.split}): {error}") from error
    return list(dataset.select(range(min(data.limit or len(dataset), len(dataset)))))


def as_text(value: Any) -> str:
    """-> a cell as text; a missing one (None, NaN) is empty."""
    return "" if is_missing(value) else str(value)


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def num_missing(rows: Iterable[Row], names: Sequence[str]) -> int:
    """-> how many rows have no value (None, NaN) in one of the columns, the optional ones apart."""
    return sum(any(is_missing(row[name]) for name in names if name not in OPTIONAL) for row in rows)
