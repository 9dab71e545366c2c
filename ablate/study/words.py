"""Pydantic's errors in the words of a study's reader: what was given, what is possible, what to do."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from ablate.core.errors import did_you_mean
from ablate.core.value_errors import EXPECTED, SLUG, shown
from ablate.core.values import Frozen
from ablate.core.yaml import Loc
from ablate.study.field_types import Disagreement
from ablate.study.fields import at, fields_of, inside, kind_at

MAX_SEEDS = 5
"""Written out."""


class Finding(NamedTuple):
    """One mistake, by its place in the study's tree."""

    loc: Loc
    message: str
    is_key: bool = False
    """It is the key that is wrong, not its value."""
    num_cells: int = 0
    """That are made with it, as far as an ablation says it."""
    fields: tuple[Loc, ...] = ()
    """Of what stands there, those that disagree."""


def findings(error: ValidationError, data: Any, outer: Loc = ()) -> Iterator[Finding]:
    """-> every mistake pydantic found in what stands at `outer` of a study's data."""
    for detail in error.errors(include_url=False):
        loc = _within((*outer, *detail["loc"]), data, detail["type"])
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            yield from findings(cause, data, loc)
        else:
            fields = cause.fields if isinstance(cause, Disagreement) else ()
            yield _finding(loc, detail, data)._replace(fields=fields)


def _within(loc: Loc, data: Any, kind: str) -> Loc:
    """-> the place without pydantic's own words for branches it tried; a missing or unknown key stays."""
    kept: list[str | int] = []
    for index, key in enumerate(loc):
        is_there = key in data if isinstance(data, Mapping) else inside(data, key) is not None
        is_last = index == len(loc) - 1 and kind == "missing"
        if is_there or is_last:
            kept.append(key)
            data = inside(data, key)
    return tuple(kept)


def _finding(loc: Loc, detail: Any, data: Any) -> Finding:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(loc, data)
    if kind == "missing" and isinstance(loc[-1], int):
        return Finding(loc[:-1], f"{_name(loc[:-1])}: more values are expected, got {loc[-1]}")
    if kind == "missing":
        return Finding(loc[:-1], _missing(loc), is_key=True)
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return Finding(loc, f"{loc[-1]!r} cannot be a name: {SLUG}", is_key=True)
    expected = EXPECTED.get(kind)
    message = expected(context) if expected else str(detail["msg"]).removeprefix("Value error, ")
    return Finding(loc, f"{_name(loc)}: {message}{_given(loc, detail['input'], context, kind)}")


def _given(loc: Loc, value: Any, context: Mapping[str, Any], kind: str) -> str:
    """-> ", got ...", with what was perhaps meant."""
    if kind == "value_error":
        return ""
    if kind == "too_short":
        return ", got none"
    hint = ""
    if kind == "string_type" and isinstance(value, int | float):
        hint = ": put it in quotes"
    if kind == "tuple_type" and isinstance(value, int | float | str):
        hint = _as_list(loc, value)
    if kind == "literal_error" and isinstance(value, str):
        hint = "." + did_you_mean(value, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
        hint = hint.partition(" Possible:")[0].rstrip(".")
        return f", got {shown(value)}{hint}"
    return f", got {shown(value)}{hint}"


def _as_list(loc: Loc, value: Any) -> str:
    """-> how a single value is written where a list is expected; `seeds: 3` may well mean three of them."""
    if loc != ("seeds",) or not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return f": write [{value}]"
    seeds = [*map(str, range(value))] if value <= MAX_SEEDS else ["0", "1", "...", str(value - 1)]
    several = f"{value} seeds" if value > 1 else "one seed"
    return f": write [{', '.join(seeds)}] for {several}, [{value}] for seed {value} alone"


def _name(loc: Loc) -> str:
    return ".".join(map(str, loc)) or "the study"


def unknown_key(loc: Loc, data: Any) -> Finding:
    """-> what to say of a key that stands where a file may not say it."""
    kind = kind_at(loc[:-1], data)
    possible = fields_of(kind, at(data, loc[:-1]))
    where = f" in {_name(loc[:-1])}" if loc[:-1] else ""
    hint = getattr(kind, "hints", {}).get(loc[-1])
    what = f" {hint}" if hint else did_you_mean(str(loc[-1]), possible, limit=40)
    return Finding(loc, f"unknown key {loc[-1]!r}{where}.{what}", is_key=True)


def _missing(loc: Loc) -> str:
    kind = kind_at(loc[:-1], None)
    what = kind.model_fields[str(loc[-1])].description if isinstance(kind, type) and issubclass(kind, Frozen) else None
    where = f" in {_name(loc[:-1])}" if loc[:-1] else ""
    return f"{str(loc[-1])!r} is missing{where}" + (f": {what[0].lower()}{what[1:].rstrip('.')}" if what else "")
