"""Rows as their source has them: of a file or folder on this disk, or a fetched data set, read offline."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ablate.core.errors import StageError
from ablate.core.local_files import first_uncounted
from ablate.study.data_settings import Data
from ablate.study.row_files.arrow_forms import is_saved, require_split, saved_files, saved_splits
from ablate.study.row_files.files import FileRows
from ablate.study.row_files.forms import Form, form_of
from ablate.study.row_files.raw import RawRow, Skipped, Spot, UnreadableRows
from ablate.study.row_files.shapes import Row, Shape, Tally, shape_of

__all__ = ["ReadRows", "Row", "read", "read_with_counts"]

Files: TypeAlias = Mapping[str, list[Path]]
"""Split -> its files."""
Numbered: TypeAlias = Iterator[tuple[str, RawRow]]
"""(file, row of it)."""


class ReadRows(NamedTuple):
    """The rows of a split, and what was met while they were read."""

    rows: list[Row]
    shape: str
    """In words."""
    tally: Tally
    skipped: Skipped


def read(path: Path, data: Data) -> list[Row]:
    """-> the rows of `read_with_counts` alone."""
    return read_with_counts(path, data).rows


def read_with_counts(path: Path, data: Data) -> ReadRows:
    """-> the rows of the data's split, `limit` applied, as `COLUMNS` names them.

    Every cell is text, missing ones empty; of chat rows `messages` is a list of turns, and `tools`, where there are
    any, a list. Raises StageError for a source that cannot be read, an unknown split or configuration, a column that is
    missing, or a cell that is not what its column should hold.
    """
    skipped, tally = Skipped(), Tally()
    shape: Shape | None = None
    rows: list[Row] = []
    try:
        for file, raw in islice(_raw_rows(path, data, skipped), data.limit):
            shape = shape or shape_of(raw.values, data, Spot(file, raw.number, raw.line))
            rows.append(shape.read(raw, file, tally))
    except UnreadableRows as error:
        raise StageError(str(error)) from error
    if shape is None:
        raise StageError(f"{data.source}: no rows in split {data.split!r}")
    return ReadRows(rows, shape.words, tally, skipped)


def _raw_rows(path: Path, data: Data, skipped: Skipped) -> Numbered:
    if path.is_file():
        if data.split != "train":
            raise StageError(f"data.split: {path.name} is one file and has only the split train, got {data.split!r}")
        return _of_files([path], skipped)
    if is_saved(path):
        folders = saved_splits(path)
        return _of_split({split: saved_files(folder) for split, folder in folders.items()}, path, data, skipped)
    return _of_data_set(path, data, skipped)


def _of_files(files: Iterable[Path], skipped: Skipped) -> Numbered:
    for file in files:
        rows = FileRows(file)
        yield from ((str(file), raw) for raw in rows)
        skipped.blank_lines += rows.skipped.blank_lines
        skipped.swallowing += rows.skipped.swallowing


def _of_split(files: Files, path: Path, data: Data, skipped: Skipped) -> Numbered:
    """-> the rows of a split, or of a slice or a sum of several, as datasets writes them: train[:50%]+test."""
    if data.split in files:
        return _of_files(files[data.split], skipped)
    from datasets import ReadInstruction

    names = [part.partition("[")[0].strip() for part in data.split.split("+")]
    for name in names:
        require_split(files, name, data.source)
    lengths = {name: sum(1 for _ in _of_files(files[name], Skipped())) for name in names}
    try:
        slices = ReadInstruction.from_spec(data.split).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise StageError(f"data.split: {data.split!r}: {error}") from error
    return chain.from_iterable(islice(_of_files(files[one.splitname], skipped), one.from_, one.to) for one in slices)


# a data set folder, such as a snapshot of the hub's


def _of_data_set(path: Path, data: Data, skipped: Skipped) -> Numbered:
    """Which files a split has is asked of datasets; they are read here, unless it reads them in a way of its own."""
    import datasets

    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(str(path), name=data.config)
        _require_counted(builder, path, data)
        files = _plain_files(builder)
        if files:
            return _of_split(files, path, data, skipped)
        dataset = datasets.load_dataset(str(path), name=data.config, split=data.split)
    except (ValueError, OSError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise StageError(f"{data.source} (config {data.config}, split {data.split}): {error}") from error
    except UnreadableRows as error:
        raise StageError(f"{data.source} (config {data.config}): {error}") from error
    return ((data.source, RawRow(row, number)) for number, row in enumerate(dataset, 1))


def _require_counted(builder: Any, path: Path, data: Data) -> None:
    """Raises StageError where the card of the data set leads to what its key does not hold."""
    listed = (str(file) for split in (builder.config.data_files or {}).values() for file in split)
    if name := first_uncounted(listed, path):
        raise StageError(
            f"{data.source} reads {name}, which is none of its files or is hidden, so that no key would tell what it"
            " held: put it into the folder, and see `data_files` in its README.md"
        )


def _plain_files(builder: Any) -> Files:
    """-> the files of each split, where all are of forms that are read here, and nothing is to be read otherwise."""
    config = builder.config
    files = {str(split): [Path(str(file)) for file in listed] for split, listed in (config.data_files or {}).items()}
    forms = [form_of(file.name) if file.is_file() else None for listed in files.values() for file in listed]
    usual = dataclasses.asdict(type(config)()) | {"sep": "\t" if Form(".tsv") in forms else ","}
    names = usual.keys() - {"name", "version", "data_dir", "data_files", "description", "features"}
    is_usual = all(getattr(config, name, usual[name]) == usual[name] for name in names)
    return files if forms and all(forms) and is_usual else {}
