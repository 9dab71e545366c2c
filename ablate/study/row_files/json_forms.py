"""Rows of JSON and JSON lines, read strictly: no key twice, no number that JSON has none for, the file's own lines."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ablate.study.row_files.forms import BOM, Form, decoded, opened, why_not
from ablate.study.row_files.raw import RawRow, Skipped, Spot, UnreadableRows, wrong_at

_BLANK = " \t\n\r"


class _BadValueError(ValueError):
    """What `json` would read, and a reader would not expect."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _BadValueError(f"the key {twice!r} stands twice in one mapping: keep one")
    return values


def _constant(word: str) -> float:
    """A missing value is often written NaN; no other word for a number is any in JSON."""
    if word == "NaN":
        return float("nan")
    raise _BadValueError(f"{word} is no number that JSON has")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_constant)


def json_lines(path: Path, lines: Iterable[tuple[int, str]], skipped: Skipped) -> Iterator[RawRow]:
    """-> the row of every line that is not blank. Raises UnreadableRows with the file's line and column."""
    num_rows = 0
    for number, text in lines:
        if not text.strip(_BLANK):
            skipped.blank_lines += 1
            continue
        num_rows += 1
        yield RawRow(_parsed_line(text, path, number), num_rows, number)


def _parsed_line(text: str, path: Path, line: int) -> Any:
    text = text.rstrip(_BLANK)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = _hint(text, path, line, error)
        raise wrong_at(str(path), line, error.pos + 1, f"not JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise wrong_at(str(path), line, 1, _words(error)) from error


def _hint(text: str, path: Path, line: int, error: json.JSONDecodeError) -> str:
    if line == 1 and (what := why_not(path)):
        return what
    if line == 1 and text.lstrip(_BLANK) in ("[", "{", "[{"):
        return ": is the file JSON, not JSON lines? Its name should end with .json"
    return ": the line may be cut off" if error.pos >= len(text) or "Unterminated" in error.msg else ""


def _words(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def json_rows(path: Path, form: Form, most: int | None, skipped: Skipped) -> Iterator[RawRow]:
    """-> the rows of a JSON file: one list, a mapping with exactly one list of mappings, or JSON lines after all.

    Of a file of more than `most` bytes a list at its top or lines are read as far as they go. Raises UnreadableRows.
    """
    with opened(path, form) as file:
        raw = file.read(-1 if most is None else most + 1).removeprefix(BOM)
    is_whole = most is None or len(raw) <= most
    skipped.is_cut = not is_whole
    begin = raw.lstrip(_BLANK.encode())[:1]
    if begin == b"{" and _is_lines(raw):
        raw = raw if is_whole else raw[: raw.rfind(b"\n") + 1]
        lines = enumerate(raw.splitlines(keepends=True), 1)
        yield from json_lines(path, ((number, decoded(line, str(path), number)) for number, line in lines), skipped)
    elif begin == b"[":
        raw = raw if is_whole else raw[: raw.rfind(b"}") + 1] or b"["
        yield from _listed(decoded(raw, str(path), 1), path, is_whole)
    elif is_whole:
        yield from _of_mapping(decoded(raw, str(path), 1), path, skipped)


def _listed(text: str, path: Path, is_whole: bool) -> Iterator[RawRow]:
    """-> the items of the list that a text is; of one that is cut, those that are whole."""
    number, line, counted = 0, 1, 0
    place = _past_blank(text, text.index("[") + 1)
    is_empty = text[place : place + 1] == "]"
    while not is_empty:
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            if not is_whole and (error.pos >= len(text) or "Unterminated" in error.msg):
                return
            _refuse(path, text, error.pos, f"not JSON: {error.msg}")
        except (ValueError, RecursionError) as error:
            raise Spot(str(path), number + 1, line).wrong(_words(error)) from error
        number += 1
        yield RawRow(value, number, line)
        place = _past_blank(text, place)
        if text[place : place + 1] != ",":
            break
        place = _past_blank(text, place + 1)
    if is_whole:
        _require_end(text, place, path)


def _require_end(text: str, place: int, path: Path) -> None:
    """Raises UnreadableRows unless a list is closed here and nothing follows."""
    if text[place : place + 1] != "]":
        _refuse(path, text, place, "not JSON: ',' or the end of the list is expected")
    rest = _past_blank(text, place + 1)
    if rest < len(text):
        _refuse(path, text, rest, "not JSON: something follows the list")


def _past_blank(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANK:
        place += 1
    return place


def _refuse(path: Path, text: str, place: int, message: str) -> NoReturn:
    line = text.count("\n", 0, place) + 1
    hint = ": the file may be cut off" if place >= len(text.rstrip(_BLANK)) else ""
    raise wrong_at(str(path), line, place - text.rfind("\n", 0, place), message + hint)


def _is_lines(raw: bytes) -> bool:
    """Whether the first line of a file is a mapping and another line follows: JSON lines."""
    first, _, rest = raw.lstrip().partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _of_mapping(text: str, path: Path, skipped: Skipped) -> Iterator[RawRow]:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        hint = why_not(path)
        _refuse(path, text, error.pos, f"not JSON: {error.msg}{hint}")
    except (ValueError, RecursionError) as error:
        raise UnreadableRows(f"{path}: {_words(error)}") from error
    if not isinstance(value, dict):
        raise UnreadableRows(f"{path}: a list of rows is expected")
    name = skipped.list_name = _name_of_list(value, path)
    yield from (RawRow(row, number) for number, row in enumerate(value[name], 1))


def _name_of_list(value: dict[str, Any], path: Path) -> str:
    """-> the key of the one list of mappings. Raises UnreadableRows where there is none, or several."""
    lists = [name for name, one in value.items() if isinstance(one, list) and all(isinstance(x, dict) for x in one)]
    if len(lists) == 1 and value[lists[0]]:
        return lists[0]
    if len(lists) > 1:
        named = ", ".join(f"{name!r} ({len(value[name])})" for name in lists)
        message = f"which list holds the rows? There are {named}: keep the one to train on in a file of its own"
        raise UnreadableRows(f"{path}: {message}")
    if value and all(isinstance(one, list | dict) for one in value.values()) and not lists:
        message = "a list of rows is expected, and this maps columns to their values: pandas writes rows with"
        raise UnreadableRows(f'{path}: {message} df.to_json(path, orient="records", lines=True), as .jsonl')
    hint = ": the only list in it is empty" if lists else ""
    raise UnreadableRows(f"{path}: a list of rows is expected, and this is a mapping without one{hint}")
