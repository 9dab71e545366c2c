"""What `diff` prints: in what two stages differ, and in what the stages that they need."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ablate.cli.console import console_of_stdout, flat, print_plainly
from ablate.core.errors import AblateError
from ablate.store.manifest import read_manifest, read_sound
from ablate.store.store import Store

OUTSIDE = ("device", "python", "versions")
"""Of how a stage was made: in no key, though last digits may depend on it."""


class _Recorded(NamedTuple):
    """A stage as its record has it."""

    name: str
    payload: Mapping[str, Any]
    provenance: Mapping[str, Any]


def print_diff(store: Store, one: str, other: str) -> None:
    """In what two stages differ. Raises AblateError for a key that is not under this root."""
    lines = list(differences(store, one, other)) or ["nothing: the two are one stage"]
    print_plainly(console_of_stdout(), "\n".join(lines))


def differences(store: Store, one: str, other: str) -> Iterator[str]:
    """-> a line for each setting, input and version in which two stages differ; inputs are followed to the reason.

    Raises AblateError for a key that is not under this root.
    """
    pair = (_recorded(store, one), _recorded(store, other))
    seen: set[tuple[str, str]] = set()
    yield from dict.fromkeys(_differences(store, *pair, "", seen))


def _differences(
    store: Store, one: _Recorded, other: _Recorded, path: str, seen: set[tuple[str, str]]
) -> Iterator[str]:
    if (one.name, other.name) in seen:
        return
    seen.add((one.name, other.name))
    for name, values in _unlike(one.payload, other.payload):
        inputs = [_find(store, value) for value in values] if name.startswith("inputs.") else []
        first, second = inputs or (None, None)
        if first and second:
            yield from _differences(store, first, second, f"{path}{name.removeprefix('inputs.')}: ", seen)
        else:
            yield f"{path}{name}: {values[0]} -> {values[1]}"
    for name, values in _unlike(_outside(one), _outside(other)) if one.provenance and other.provenance else ():
        yield f"{path}in no key: {name}: {values[0]} -> {values[1]}"


def _outside(stage: _Recorded) -> dict[str, Any]:
    return {name: stage.provenance.get(name) for name in OUTSIDE}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """-> dotted path and both values of what is not the same."""
    first, second = flat(dict(one)), flat(dict(other))
    for name in sorted(first | second):
        values = (first.get(name, "(not there)"), second.get(name, "(not there)"))
        if values[0] != values[1]:
            yield name, values


def _recorded(store: Store, key: str) -> _Recorded:
    stage = _find(store, key)
    if stage is None:
        raise AblateError(f"no stage under {store.runs} has the key {key!r}; `ablate status` lists them")
    return stage


def _find(store: Store, key: str) -> _Recorded | None:
    """-> a stage by its key, or how that begins, or its folder's name: as it was committed, else as it was ordered.

    Raises AblateError where several begin so.
    """
    key12 = key.rpartition("-")[2][:12]
    paths = [path for path in store.folders("stages") if f"-{key12}" in path.name]
    if len(paths) > 1:
        raise AblateError(f"{key!r} is how several keys begin: {', '.join(path.name for path in paths[:5])}")
    for path in paths or _with_content(store, key):
        record = read_sound(path, "stage.json")
        if record:
            return _Recorded(path.name, record["payload"], record["provenance"])
    for attempt in reversed(store.attempts(key12)):
        if attempt.request:
            return _Recorded(key12, attempt.request["payload"], {})
    return None


def _with_content(store: Store, digest: str) -> list[Path]:
    """-> stages that are named by what they hold, where it is this."""
    folders = [path for path in store.folders("stages") if path.name.startswith("rows-")]
    return [path for path in folders if (read_manifest(path) or {}).get("content") == digest]
