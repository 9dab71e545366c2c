"""The frozen, closed base of every value that crosses a file, and the digest that turns one into a key."""

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class Role(Enum):
    """What a field of a recipe means for the key of the stage that uses it."""

    IDENTITY = "identity"
    """Can change the result: part of the key."""
    EXTENSION = "extension"
    """Can change the result too, and came later than results did: part of the key where it is not its default, which
    does what was done before the field was there, and therefore never changes."""
    RUNTIME = "runtime"
    """How the result is made, not what it is: in no key."""
    INPUT = "input"
    """Chooses an input of the stage; the input's own key says what was chosen."""


IDENTITY, EXTENSION, RUNTIME, INPUT = Role.IDENTITY, Role.EXTENSION, Role.RUNTIME, Role.INPUT

ATOMS = frozenset({str, int, float, bool, type(None)})
"""Types, not their subclasses, that stand in JSON for themselves."""

Int: TypeAlias = Annotated[int, Field(strict=True)]
Num: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Bool: TypeAlias = Annotated[bool, Field(strict=True)]
Cards: TypeAlias = Literal["auto"] | Annotated[int, Field(strict=True, gt=0)]
"""Of a stage."""


class Frozen(BaseModel):
    """A value: frozen, closed to unknown fields, documented by the strings under its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def further_identity(self) -> dict[str, Json]:
        """-> what a key holds of this value beside its fields: nothing, unless its class says otherwise."""
        return {}


def role_of(model: type[BaseModel], field: str) -> Role | None:
    """-> the role that a field declares, or None when it is not classed."""
    return next((m for m in model.model_fields[field].metadata if isinstance(m, Role)), None)


def identity(value: Frozen) -> dict[str, Json]:
    """-> the fields that can change a result, nested, defaults included, ready for `digest`.

    Defaults are spelled out so that a changed default changes the key instead of reusing an old result; but for
    extensions, whose default never changes.
    """
    model = type(value)
    fields = {name: _plain(getattr(value, name)) for name in fields_of(model, IDENTITY)}
    extensions = {name: _plain(getattr(value, name)) for name in fields_of(model, EXTENSION)}
    changed = {name: given for name, given in extensions.items() if given != _plain_default(model, name)}
    return fields | changed | value.further_identity()


def is_unused(value: Frozen, field: str) -> bool:
    """Whether a field is an extension at its default: it says nothing, in a key and to a reader."""
    model = type(value)
    return role_of(model, field) is Role.EXTENSION and _plain(getattr(value, field)) == _plain_default(model, field)


@cache
def fields_of(model: type[BaseModel], role: Role) -> tuple[str, ...]:
    """-> the fields of a role, in their order."""
    return tuple(name for name in model.model_fields if role_of(model, name) is role)


@cache
def _plain_default(model: type[Frozen], field: str) -> Json:
    return _plain(model.model_fields[field].get_default(call_default_factory=True))


def _plain(value: Any) -> Json:
    if type(value) in ATOMS:  # most of what a plan of a thousand cells asks
        return value  # type: ignore[no-any-return]
    if isinstance(value, Frozen):
        return identity(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no stable meaning in a key: {value!r}")


def canonical(payload: Any) -> str:
    """-> the one JSON text of a payload: sorted keys, no spaces, no NaN.

    Raises TypeError for anything whose text could change between two runs, ValueError for NaN or infinity.
    """
    return json.dumps(_checked(payload), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checked(value: Any) -> Json:
    if type(value) in ATOMS and type(value) is not float:
        return value  # type: ignore[no-any-return]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in a key")
    if isinstance(value, dict):
        if not {*map(type, value)} <= {str}:
            raise TypeError(f"keys of a payload are strings, got {list(value)!r}")
        return {key: _checked(item) for key, item in value.items()}
    return [_checked(item) for item in value] if isinstance(value, list | tuple) else _plain(value)


def spelled(value: Any) -> Any:
    """-> the same with what JSON has no number for as text: "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {name: spelled(item) for name, item in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list | tuple) else value


def digest(payload: Any) -> str:
    """-> sha256 (64 hex digits) of the canonical JSON of a payload."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()
