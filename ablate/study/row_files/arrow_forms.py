"""Rows of parquet files, and of folders that `save_to_disk` of datasets made."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from ablate.core.errors import did_you_mean
from ablate.study.row_files.forms import why_not
from ablate.study.row_files.raw import RawRow, UnreadableRows

BATCH: Final = 256


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Raises UnreadableRows."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        with ParquetFile(path) as file:
            _require_single_names(file.schema_arrow.names, path)
            yield from _numbered(file.iter_batches(batch_size=BATCH))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableRows(f"{path}: cannot be read as .parquet: {error}{why_not(path)}") from error


def _numbered(batches: Any, number: int = 0) -> Iterator[RawRow]:
    for batch in batches:
        for begin in range(0, batch.num_rows, BATCH):
            for row in batch.slice(begin, BATCH).to_pylist():
                number += 1
                yield RawRow({name: _as_written(value) for name, value in row.items()}, number)


def _as_written(value: Any) -> Any:
    """-> a cell without the keys that Arrow adds: it gives every mapping of a column the keys of all of them.

    A turn's own keys stay, of which null content means something.
    """
    if isinstance(value, list):
        return [_as_written(one) for one in value]
    if isinstance(value, dict) and ("role" in value or "from" in value):
        return {name: _without_nulls(one) for name, one in value.items()}
    return _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _require_single_names(names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnreadableRows(f"{path}: there are several columns {twice[0]!r}: rename one")


def num_parquet_rows(path: Path) -> int:
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


# a folder that save_to_disk made


def is_saved(folder: Path) -> bool:
    """Whether datasets' `save_to_disk` made a folder."""
    return (folder / "dataset_dict.json").is_file() or _is_saved_split(folder)


def _is_saved_split(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def saved_splits(folder: Path) -> dict[str, Path]:
    """-> the splits of a folder that save_to_disk made, each with its own folder. Raises UnreadableRows.

    A data set saved alone has the split that it was made from; where none is noted, train.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _json(folder / "dataset_dict.json").get("splits") or []
        return {str(name): folder / str(name) for name in names}
    return {str(_json(folder / "state.json").get("_split") or "train"): folder}


def require_split(splits: Collection[str], split: str, name: str) -> None:
    """Raises UnreadableRows for a split that a data set of this name lacks."""
    if split not in splits:
        hint = did_you_mean(split, splits)
        raise UnreadableRows(f"data.split: {name} has no split {split!r}.{hint} Say data.split: ...")


def saved_files(folder: Path) -> list[Path]:
    """-> the Arrow files of one split, in their order. Raises UnreadableRows where one is missing."""
    state = _json(folder / "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UnreadableRows(f"{folder}: an old datasets saved it with an order of its own: load it and save it again")
    listed = state.get("_data_files") or []
    files = [folder / str(one.get("filename")) for one in listed if isinstance(one, dict)]
    if lacking := next((file for file in files if not file.is_file()), None):
        raise UnreadableRows(f"{lacking} is not there, and state.json beside it lists it: save the data set again")
    return files


def arrow_rows(path: Path) -> Iterator[RawRow]:
    """-> the rows of one of its Arrow files. Raises UnreadableRows."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            _require_single_names(stream.schema.names, path)
            yield from _numbered(stream)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableRows(f"{path}: cannot be read as Arrow: {error}{why_not(path)}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableRows(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UnreadableRows(f"{path}: a mapping is expected")
    return value
