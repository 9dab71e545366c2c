"""Names of files in a study become absolute paths; a file that is not there is a mistake, any other name a hub id."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ablate.core.errors import did_you_mean
from ablate.core.hub import is_hub_id
from ablate.core.yaml import Document, Loc
from ablate.example import assets
from ablate.study.fields import at, locate
from ablate.study.near_names import near_name
from ablate.study.row_files.forms import TEXT_FORMS, form_of
from ablate.study.words import Finding

BUILTIN: Final = "builtin:tiny/"
_SUFFIXES: Final = {"source": (*TEXT_FORMS, ".parquet"), "published": (".yaml", ".yml")}
"""Of the files that may stand where a path does; elsewhere folders alone."""
_AXES = ("grid", "zip", "set", "rows", "exclude", "contrasts")


def with_local_paths(document: Document, above: Path) -> tuple[Any, list[Finding]]:
    """-> the study's data with absolute paths, and what is not there.

    A path is relative to the file that says it, one given with --set to the folder `above` (the study's).
    """
    problems: list[Finding] = []
    data = document.data
    for loc, field in _paths(data):
        value = at(data, loc)
        if not isinstance(value, str):
            continue
        place = document.place(loc)
        base = Path(place.file).parent if place and place.line else above
        path, problem = _resolved(value, field, base)
        problems += [Finding(loc, f"{_setting(loc)}: {problem}")] if problem else []
        data = _with(data, loc, str(path) if path else value)
    return data, problems


def _setting(loc: Loc) -> str:
    """-> the dotted path of a setting, the same in the file and in every ablation: the same mistake is told once."""
    if loc[0] != "ablations":
        return ".".join(map(str, loc))
    return next(key for key in reversed(loc) if isinstance(key, str))


def _resolved(value: str, field: str, base: Path) -> tuple[Path | None, str | None]:
    """-> the path, None for a hub id; and what is wrong with it."""
    if value.startswith("builtin:"):
        return _builtin(value)
    path = Path(value).expanduser() if value.startswith("~") else base / value
    path = Path(os.path.abspath(path))  # noqa: PTH100 (Path.resolve follows links, whose names a reader would not know)
    if path.exists():
        return path, _wrong_sort(path, value, field)
    is_file_name = field == "source" and form_of(value) is not None
    if value.startswith(("/", "./", "../", "~")) or is_file_name or field in ("include_path", "published"):
        return path, f"{value} is not there (looked for {path}){_instead(value, path, field, base)}"
    if is_hub_id(value):
        return None, None
    neither = f"{value!r} is neither a hub id such as Qwen/Qwen2-0.5B-Instruct nor a file or folder that exists"
    return None, neither + _instead(value, path, field, base)


def _instead(value: str, path: Path, field: str, base: Path) -> str:
    """-> ". Did you mean './bigg'?", where something near by can be meant."""
    said_from = None if value.startswith(("/", "~")) else base
    near = near_name(path, said_from, frozenset(_SUFFIXES.get(field, ())))
    return f".{near}" if near else ""


def _wrong_sort(path: Path, value: str, field: str) -> str | None:
    if field in ("model", "base", "include_path") and not path.is_dir():
        return f"{value} is a file; a folder is expected"
    if field == "published" and not path.is_file():
        return f"{value} is a folder; a file is expected"
    return None


def shipped(value: str) -> Path | None:
    """-> the path of something that ships with ablate, by its builtin name; None for any other."""
    return _builtin(value)[0]


def _builtin(value: str) -> tuple[Path | None, str | None]:
    path = assets() / value.removeprefix(BUILTIN)
    if value.startswith(BUILTIN) and ".." not in path.parts and path.exists():
        return path, None
    shipped = sorted(f"{BUILTIN}{entry.name}" for entry in assets().iterdir()) if assets().is_dir() else []
    return None, f"{value!r} is not shipped with ablate.{did_you_mean(value, shipped)}"


def as_said(path: str) -> str:
    """-> a path as a study would say it: what ships with ablate by its builtin name, the rest as it is."""
    inside = os.path.relpath(path, assets()) if os.path.isabs(path) else os.pardir  # noqa: PTH117
    return path if inside.startswith(os.pardir) else f"{BUILTIN}{inside}"


def _paths(data: Any) -> Iterator[tuple[Loc, str]]:
    """-> the place of everything in a study that may be a path, and its field's name; there may be nothing there."""
    yield ("data", "source"), "source"
    yield ("evaluate", "include_path"), "include_path"
    yield ("published",), "published"
    for pair in _keys(data, "pairs"):
        for role in ("teacher", "student"):
            yield ("pairs", pair, role, "model"), "model"
            yield ("pairs", pair, role, "base"), "base"
    for ablation in _keys(data, "ablations"):
        for axis in _AXES:
            loc: Loc = ("ablations", ablation, axis)
            for inner, value in _settings(at(data, loc), loc):
                field = _path_field(str(inner[-1]), data)
                each = [(*inner, index) for index in range(len(value))] if isinstance(value, list) else [inner]
                yield from ((place, field) for place in each if field)


def _keys(data: Any, part: str) -> list[str]:
    return list(mapping) if isinstance(mapping := at(data, (part,)), dict) else []


def _settings(value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """-> the place of each dotted path -> value in `grid`, `zip`, `set`, `rows`, `exclude` or `contrasts`."""
    if loc[-1] == "contrasts" and isinstance(value, dict):
        for name, side in ((name, side) for name in value for side in ("plus", "minus")):
            yield from _settings(at(value, (name, side)), (*loc, name, side))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            inner = item.get("settings") if loc[-1] == "rows" and isinstance(item, dict) else item
            yield from _settings(inner, (*loc, index, *(("settings",) if loc[-1] == "rows" else ())))
    elif isinstance(value, dict):
        yield from (((*loc, key), inner) for key, inner in value.items())


def _path_field(path: str, data: Any) -> str | None:
    try:
        loc = locate(path, data)
    except ValueError:
        return None
    is_path = loc in (("data", "source"), ("evaluate", "include_path")) or (
        loc[0] == "pairs" and loc[3:] in (("model",), ("base",))
    )
    return str(loc[-1]) if is_path else None


def _with(data: Any, loc: Loc, value: Any) -> Any:
    """-> the data with another value at a place; what is around it is copied, never changed."""
    if not loc:
        return value
    key = loc[0]
    if isinstance(data, list):
        return [_with(item, loc[1:], value) if index == key else item for index, item in enumerate(data)]
    return data | {key: _with(data[key], loc[1:], value)}
