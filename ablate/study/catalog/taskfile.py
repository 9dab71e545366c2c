"""One lm-eval task file: read without running what it names, merged with what it includes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ablate.core.errors import AblateError


class Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without code."""


class Python(str):
    """What a `!function` names, as text."""

    __slots__ = ()


def merged(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """-> a task file with the files it includes below it; `!function utils.f` is the text `<folder>/utils.f`.

    Raises AblateError for what cannot be read.
    """
    if path in above:
        raise AblateError(f"{path}: includes itself, by way of {above[-1]}")
    own = _read(path)
    included: dict[str, Any] = {}
    for name in listed(own.pop("include", None)):
        included |= merged((path.parent / name).resolve(), (*above, path))
    included.pop("task_list", None)
    return included | own


def places_of_code(path: Path, seen: set[Path]) -> Iterator[str]:
    """-> where a task file, or one that it includes, names Python to run.

    That is every tag that is not plain YAML's, and every metric that is a script. Raises AblateError for what cannot be
    read.
    """
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    try:
        for event in yaml.parse(plainly_read(path), Loader=Plain):
            tag = getattr(event, "tag", None)
            if tag and (not tag.startswith("tag:yaml.org,2002:") or "python" in tag):
                line = event.start_mark.line + 1 if event.start_mark else "?"
                yield f"{path}:{line}: {tag} {getattr(event, 'value', '')}".rstrip()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    own = _read(path)
    yield from (f"{path}: metric {name} (a script)" for name in _script_metrics(own))
    for name in listed(own.get("include")):
        yield from places_of_code(path.parent / name, seen)


def _script_metrics(value: Any) -> Iterator[str]:
    """Metrics that lm-eval has the `evaluate` library load, at any depth."""
    yield from (str(entry["metric"]) for entry in in_lists(value) if _is_script(entry))


def in_lists(value: Any) -> Iterator[dict[str, Any]]:
    """-> every mapping in a value, itself too, at any depth; an alias may lead back to where it stands."""
    seen, rest = set(), [value]
    while rest:
        value = rest.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield value
        rest += value.values() if isinstance(value, dict) else value


def texts_in(value: Any) -> Iterator[str]:
    """-> every text in a value, of lists and mappings that hold each other at most eight deep."""
    rest = [(value, 0)]
    while rest:
        one, depth = rest.pop(0)
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list) and depth < 8:
            rest += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]


def _is_script(entry: dict[str, Any]) -> bool:
    name = str(entry.get("metric", ""))
    return bool(name) and bool(entry.get("hf_evaluate") or "/" in name or name.endswith(".py"))


def listed(value: Any) -> list[str]:
    """A name, a list of names or nothing -> a list."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def _read(path: Path) -> dict[str, Any]:
    class Loader(Plain):
        pass

    def as_text(loader: Any, suffix: str, node: yaml.Node) -> str:
        return Python(path.parent / str(node.value))

    Loader.add_multi_constructor("!", as_text)
    try:
        read = yaml.load(plainly_read(path), Loader=Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    return read if isinstance(read, dict) else {}


def plainly_read(path: Path) -> str:
    """-> the text of an ordinary file: to read a pipe or a device could last for ever. Raises AblateError."""
    try:
        if path.exists() and not path.is_file():
            raise AblateError(f"{path}: not a task file that can be read: it is no ordinary file")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> AblateError:
    return AblateError(f"{path}: not a task file that can be read: {error}")
