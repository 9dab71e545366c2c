"""The rows of one file, whatever its form, one after the other; and how many a file has."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from ablate.study.row_files.arrow_forms import (
    arrow_rows,
    is_saved,
    num_parquet_rows,
    parquet_rows,
    saved_files,
    saved_splits,
)
from ablate.study.row_files.csv_form import DELIMITERS, csv_rows
from ablate.study.row_files.forms import POSSIBLE, Form, TextLines, form_of, opened
from ablate.study.row_files.json_forms import json_lines, json_rows
from ablate.study.row_files.raw import RawRow, Skipped, UnreadableRows, kind_of

MOST_LINES_BYTES: Final = 200_000_000
MOST_PARSED_BYTES: Final = 50_000_000
"""Files up to here are counted while a person waits for a plan: a second or two."""
_CHUNK: Final = 1 << 20


class FileRows:
    """The rows of a file; of one with more than `most` bytes of text, the first ones."""

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path, self.skipped = path, Skipped()
        self._most = most

    def __iter__(self) -> Iterator[RawRow]:
        """Raises UnreadableRows, with the place, for what cannot be read as rows."""
        for raw in self._raw_rows():
            if not isinstance(raw.values, dict):
                is_json = isinstance(raw.values, list) and self.path.name.endswith("l") and raw.number == 1
                hint = ": is the file JSON, not JSON lines? Its name should end with .json" if is_json else ""
                file = f"{self.path}:{raw.line}" if raw.line else f"{self.path}"
                what = f"row {raw.number} is no mapping of columns to values but {kind_of(raw.values)}"
                raise UnreadableRows(f"{file}: {what}{hint}")
            yield raw

    def _raw_rows(self) -> Iterator[RawRow]:
        form = Form(".arrow") if self.path.suffix == ".arrow" else form_of(self.path.name)
        if form is None:
            raise UnreadableRows(f"{self.path}: rows are read from {POSSIBLE}, not from {self.path.name}")
        if form.suffix == ".arrow":
            return arrow_rows(self.path)
        if form.suffix == ".parquet":
            return parquet_rows(self.path)
        if form.suffix == ".json":
            return json_rows(self.path, form, self._most, self.skipped)
        lines = TextLines(self.path, form, self._most, self.skipped)
        if form.suffix == ".jsonl":
            return json_lines(self.path, lines, self.skipped)
        return csv_rows(self.path, lines, DELIMITERS[form.suffix], self.skipped)


def num_rows_in(path: Path, split: str) -> int | None:
    """-> how many rows a data file has, or a split of a folder that save_to_disk made.

    None where that takes long to tell, or it cannot be read.
    """
    try:
        if path.is_dir():
            splits = saved_splits(path) if is_saved(path) else {}
            return sum(map(_num_arrow_rows, saved_files(splits[split]))) if split in splits else None
        stat = path.stat()
        return _counted(path, stat.st_mtime_ns, stat.st_size)
    except (UnreadableRows, OSError):
        return None  # the stage that reads it tells why


@lru_cache(maxsize=16)
def _counted(path: Path, changed_at: int, size: int) -> int | None:
    form = form_of(path.name)
    if form is None:
        return None
    if form.suffix == ".parquet":
        return num_parquet_rows(path)
    if form.suffix == ".jsonl":
        return _num_lines(path, form)
    if size > MOST_PARSED_BYTES:
        return None
    rows = FileRows(path, MOST_PARSED_BYTES)
    num = sum(1 for _ in rows)
    return None if rows.skipped.is_cut else num


def _num_lines(path: Path, form: Form) -> int | None:
    """-> lines that are not blank, as far as a person waits."""
    num, num_bytes, is_blank = 0, 0, True
    with opened(path, form) as file:
        while part := file.readline(_CHUNK):
            num_bytes += len(part)
            if num_bytes > MOST_LINES_BYTES:
                return None
            is_blank = is_blank and part.isspace()
            if part.endswith(b"\n"):
                num, is_blank = num + (not is_blank), True
    return num + (not is_blank)


def _num_arrow_rows(path: Path) -> int:
    import pyarrow  # type: ignore[import-untyped]

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
        return sum(batch.num_rows for batch in stream)
