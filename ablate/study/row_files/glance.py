"""A look at a study's rows before anything is run: their shape, how many, and what is wrong with the first ones."""

from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from ablate.study.data_settings import Data
from ablate.study.row_files.arrow_forms import is_saved, require_split, saved_files, saved_splits
from ablate.study.row_files.files import FileRows, num_rows_in
from ablate.study.row_files.forms import TEXT_FORMS, form_of
from ablate.study.row_files.raw import Spot, UnreadableRows
from ablate.study.row_files.shapes import Shape, Tally, require_answers, shape_of

MOST_BYTES: Final = 4_000_000
MOST_ROWS: Final = 30_000
"""Of text: as much as is read in well under a second."""
MOST_ARROW_ROWS: Final = 2_000


class Glance(NamedTuple):
    """What was seen."""

    problem: str | None = None
    shape: str | None = None
    num_rows: int | None = None
    """Where all were looked at, before `limit`."""


def glance(data: Data) -> Glance:
    """-> what a source on this disk holds; nothing of one that is not here, or a folder that datasets sorts out."""
    path = Path(data.source)
    try:
        if not path.is_absolute():
            return Glance()
        if path.is_dir():
            return _of_folder(path, data)
        if not path.is_file():
            return Glance()
        stat = path.stat()
        return _of_file(path, stat.st_mtime_ns, stat.st_size, data.model_dump_json())
    except OSError as error:
        return Glance(f"{path}: cannot be read: {error.strerror or error}")


def _of_folder(path: Path, data: Data) -> Glance:
    if not is_saved(path):
        return Glance()
    try:
        splits = saved_splits(path)
        names = [part.partition("[")[0].strip() for part in data.split.split("+")]
        for name in names if data.split not in splits else ():
            require_split(splits, name, path.name)
        files = saved_files(splits[data.split if data.split in splits else names[0]])
    except UnreadableRows as error:
        return Glance(str(error))
    if not files:
        return Glance(f"{path}: no rows in it")
    is_all = data.split in splits and len(files) == 1
    return _looked_at(files[0], data, is_all=is_all)._replace(num_rows=num_rows_in(path, data.split))


@lru_cache(maxsize=64)
def _of_file(path: Path, changed_at: int, size: int, data: str) -> Glance:
    return _looked_at(path, Data.model_validate_json(data)) if form_of(path.name) else Glance()


def _looked_at(path: Path, data: Data, *, is_all: bool = True) -> Glance:
    """`is_all`: there are no rows of the data elsewhere."""
    shape: Shape | None = None
    tally = Tally()
    form = form_of(path.name)
    is_text = form is not None and form.suffix in TEXT_FORMS
    most = MOST_ROWS if is_text else MOST_ARROW_ROWS
    rows = FileRows(path, MOST_BYTES)
    try:
        for raw in rows:
            shape = shape or shape_of(raw.values, data, Spot(str(path), raw.number, raw.line))
            shape.read(raw, str(path), tally)
            if tally.rows == min(data.limit or most, most):
                if is_all and tally.rows == data.limit:
                    require_answers(tally, data)
                return Glance(None, shape.words, None if is_text else num_rows_in(path, "train"))
        if shape and is_all and not rows.skipped.is_cut:
            require_answers(tally, data)
    except UnreadableRows as error:
        return Glance(str(error), shape.words if shape else None)
    if shape is None:
        return Glance() if rows.skipped.is_cut else Glance(f"{path}: no rows in it")
    return Glance(None, shape.words, None if rows.skipped.is_cut else tally.rows)
