"""What a profile says beside its kind: checked by its executor's own schema, and holding no token."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from ablate.core import secrets
from ablate.core.errors import Problem, StudyError, did_you_mean
from ablate.core.value_errors import EXPECTED, shown
from ablate.core.yaml import Loc
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.profiles import Profile

_ASSIGNED = re.compile(r"\b([A-Za-z_]\w*)=(?!\s|$|[\"']?\$)")
"""A variable that is given a value that stands there, not one that is read elsewhere."""


class Mistake(NamedTuple):
    """One thing wrong with a profile's options."""

    loc: Loc
    """From the options down."""
    message: str
    is_key: bool = False
    """It is the key that is wrong, not its value."""


def options_model(kind: str) -> type[BaseModel] | None:
    """-> the schema of what a profile of a kind may say beside it; None: nothing. Raises UnknownName."""
    model: type[BaseModel] | None = getattr(EXECUTORS[kind], "options", None)
    return model


def require_valid(profile: Profile) -> None:
    """Raises StudyError with every mistake in a profile's options, UnknownName for its kind."""
    mistakes = list(option_mistakes(profile))
    if mistakes:
        raise StudyError([Problem(None, f"profile {profile.name}: {mistake.message}") for mistake in mistakes])


def option_mistakes(profile: Profile) -> Iterator[Mistake]:
    """-> what is wrong with a profile's options. Raises UnknownName for its kind."""
    leaks = list(_leaks(profile.options, ()))
    if leaks:  # nothing else is told of them: a message may quote a value
        yield from leaks
        return
    model = options_model(profile.kind)
    if model is None:
        for key in profile.options:
            yield Mistake((key,), f"unknown key {key!r}: executor {profile.kind!r} takes none but `kind`", is_key=True)
        return
    try:
        model.model_validate(dict(profile.options))
    except ValidationError as error:
        yield from dict.fromkeys(_mistake(detail, profile.options, model) for detail in error.errors())


def _mistake(detail: Any, options: Mapping[str, Any], model: type[BaseModel]) -> Mistake:
    """An error of pydantic's -> the mistake, in words."""
    kind, loc = detail["type"], detail["loc"]
    name = ".".join(map(str, _in(options, loc)))
    if kind == "extra_forbidden":
        possible = model.model_fields if len(loc) == 1 else ()
        return Mistake(loc, f"unknown key {loc[-1]!r}.{did_you_mean(str(loc[-1]), possible, limit=40)}", is_key=True)
    if kind == "missing":
        return Mistake(loc[:-1], f"{'.'.join(map(str, loc))!r} is missing", is_key=True)
    if kind == "value_error":
        words = str(detail["msg"]).removeprefix("Value error, ")
        return Mistake(_in(options, loc), f"{name}: {words}" if name else words)
    expected = EXPECTED.get(kind) if kind != "string_pattern_mismatch" else None  # that speaks of names
    words = expected(detail.get("ctx", {})) if expected else str(detail["msg"])
    return Mistake(_in(options, loc), f"{name}: {words}, got {shown(detail['input'])}")


def _in(data: Any, loc: Loc) -> Loc:
    """-> the part of a place that is there: pydantic adds words of its own for branches that it tried."""
    kept: list[str | int] = []
    for key in loc:
        is_there = key in data if isinstance(data, Mapping) else isinstance(data, list) and isinstance(key, int)
        if is_there:
            kept.append(key)
            data = data[key]
    return tuple(kept)


# tokens and passwords


def _leaks(value: Any, loc: Loc) -> Iterator[Mistake]:
    """-> where a token or a password stands, or is handed on: options are written into runs/ and into job scripts."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if secrets.is_named_so(key):
                yield Mistake((*loc, key), _LEAK.format(what=key), is_key=True)
            else:
                yield from _leaks(inner, (*loc, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaks(inner, (*loc, index))
    elif isinstance(value, str) and (what := _leak_in(value)):
        yield Mistake(loc, _LEAK.format(what=what))


def _leak_in(text: str) -> str | None:
    named = (match[1] for match in _ASSIGNED.finditer(text) if secrets.is_named_so(match[1]))
    return next(named, None) or ("a token or a password" if secrets.hidden(text) != text else None)


_LEAK = (
    "{what} cannot stand in a profile, which is kept in runs/ and in job scripts. What fetches finds a token by itself"
    " (`hf auth login`); another is read on the node, from a file that you alone can read: $(cat ~/.my_token)"
)
