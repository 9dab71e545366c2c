"""A row as its file has it, with the place it stands at, and the error of one that cannot be read."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ablate.core.errors import AblateError, Place


class UnreadableRows(AblateError):
    """Rows that cannot be read as they are meant: the message begins with file, line (and column) and row."""

    exit_code = 1


class RawRow(NamedTuple):
    """What one row of a file holds."""

    values: Any
    """A mapping of columns to values, unless the file is wrong."""
    number: int
    """From 1, blank lines apart."""
    line: int = 0
    """Where it begins, from 1; 0 in files that have no lines."""


class Spot(NamedTuple):
    """Where something stands: a file, one of its rows, a column or a turn of it."""

    file: str
    number: int = 0
    """Of the row."""
    line: int = 0
    inner: str = ""
    """Inside the row."""

    def at(self, inner: str) -> "Spot":
        """-> a place inside this one, such as "column 'output'"."""
        return Spot(self.file, self.number, self.line, f"{self.inner}, {inner}" if self.inner else inner)

    def wrong(self, message: str) -> UnreadableRows:
        return UnreadableRows(f"{self}: {message}")

    def __str__(self) -> str:
        words = [f"row {self.number}"] if self.number else []
        file = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(filter(None, (file, ", ".join([*words, *([self.inner] if self.inner else [])]))))


def wrong_at(file: str, line: int, column: int, message: str) -> UnreadableRows:
    """-> the error of a character of a file."""
    return UnreadableRows(f"{Place(file, line, column)}: {message}")


@dataclass
class Skipped:
    """What a reader met and left out, or wonders about."""

    is_cut: bool = False
    """More bytes are there than were to be read."""
    blank_lines: int = 0
    swallowing: int = 0
    """Rows of a CSV file one of whose cells looks like rows of the file: a quote may not have been closed."""
    list_name: str | None = None
    """Of a JSON mapping: the key whose list is read."""


KINDS_OF_VALUES = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


def kind_of(value: Any) -> str:
    """-> what a value that should be another is, in words: a number (3), nothing (null), a list."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        return f"text ({value[:30]!r})"
    words = KINDS_OF_VALUES.get(type(value), f"a {type(value).__name__}")
    return f"{words} ({str(value).lower()})" if isinstance(value, bool | int | float) else words
