"""Rows of CSV and TSV files, read strictly: every row has the header's cells, a quote that opens is closed."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from ablate.study.row_files.forms import TextLines
from ablate.study.row_files.raw import RawRow, Skipped, UnreadableRows, wrong_at

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def csv_rows(path: Path, lines: TextLines, delimiter: str, skipped: Skipped) -> Iterator[RawRow]:
    """-> the rows below a header. Raises UnreadableRows with the line for one with more or fewer cells than it."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(_without_nul(path, lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number, begin = 0, 1
    try:
        for cells in reader:
            if not cells or (header and len(header) > 1 and len(cells) == 1 and not cells[0].strip()):
                skipped.blank_lines += 1
            elif header is None:
                header = _checked_header(cells, path, delimiter)
            else:
                number += 1
                yield RawRow(_row(header, cells, path, begin), number, begin)
                skipped.swallowing += any(_looks_like_rows(cell, delimiter, len(header)) for cell in cells)
            begin = reader.line_num + 1
    except csv.Error as error:
        if not skipped.is_cut or "end of data" not in str(error):
            raise wrong_at(str(path), begin, 1, _words(str(error))) from error


def _without_nul(path: Path, lines: TextLines) -> Iterator[str]:
    for number, text in lines:
        if "\0" in text:
            raise wrong_at(str(path), number, text.index("\0") + 1, "a NUL byte: this is no text, or it is UTF-16")
        yield text


def _checked_header(cells: list[str], path: Path, delimiter: str) -> list[str]:
    twice = sorted({name for name in cells if name and cells.count(name) > 1})
    if twice:
        raise UnreadableRows(f"{path}:1: the header names {', '.join(map(repr, twice))} twice: rename one")
    other = next((mark for mark in ";\t|," if mark != delimiter and mark in cells[0]), None)
    if len(cells) == 1 and other:
        remedy = "name the file .tsv" if other == "\t" else "write it with commas"
        raise UnreadableRows(f"{path}:1: the header {cells[0][:60]!r} is one cell: is it cut by {other!r}? {remedy}")
    return cells


def _row(header: list[str], cells: list[str], path: Path, line: int) -> dict[str, str]:
    if len(cells) != len(header):
        more = "more" if len(cells) > len(header) else "fewer"
        counted = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        message = f"{counted}, {more} than the header's {len(header)} ({', '.join(header)})"
        remedy = "a cell with a comma, a quote or a line break in it is put in quotes"
        raise UnreadableRows(f"{path}:{line}: {message}: {remedy}; the last cell is {cells[-1][:40]!r}")
    surplus = next((cell for name, cell in list(zip(header, cells, strict=True))[1:] if cell and not name), "")
    if surplus:
        remedy = "is it the end of the cell before it, which then is put in quotes? Else name the column"
        raise UnreadableRows(f"{path}:{line}: {surplus[:40]!r} is in a column without a name: {remedy}")
    return dict(zip(header, cells, strict=True))


def _words(error: str) -> str:
    if "end of data" in error:
        return "a quote is opened in this row and never closed"
    if "expected after" in error:
        return 'a closing quote is followed by text: inside quotes, a quote is written twice ("")'
    return f"not CSV: {error}"


def _looks_like_rows(cell: str, delimiter: str, num_cells: int) -> bool:
    """Whether every further line of a cell has as many cells as a row: an open quote may have swallowed them."""
    _, *further = cell.split("\n")
    return bool(further) and num_cells > 1 and all(line.count(delimiter) == num_cells - 1 for line in further)
