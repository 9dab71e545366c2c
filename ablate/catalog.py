"""What lm-eval's task files say, read without importing lm-eval: which tasks there are and which data they read."""

import hashlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ablate import disk
from ablate.errors import AblateError, did_you_mean

# readers of `datasets` that take the place of a data set's name; what they read are files
_FILE_READERS = {"json", "csv", "parquet", "text", "arrow", "xml", "webdataset", "pandas"}
_HUB_FILE = re.compile(r"hf://datasets/([^/'\"]+/[^/'\"@]+)")
_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
# a key at the left margin, its value, and the lines of a list below it
_KEY = re.compile(r"""^["']?(group|task|tag|include|class)["']?[ \t]*:[ \t]*(.*)((?:\n[ \t]*-[ \t].*)*)""", re.MULTILINE)


class DataSource(NamedTuple):
    """A data set on the hub that a task reads."""

    path: str
    config: str | None


class UnknownTask(AblateError):
    """A task that neither lm-eval nor the study's own folder has."""


class Entry(NamedTuple):
    """A task or group: its file, and what the groups above it override."""

    name: str
    file: Path
    overrides: Mapping[str, Any]
    is_group: bool


@dataclass(frozen=True)
class Index:
    """The names that a folder of task files defines."""

    files: dict[str, str] = field(default_factory=dict)
    """Task or group -> its file."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Tag -> its tasks."""

    def __contains__(self, name: object) -> bool:
        return name in self.files or name in self.tags


def lm_eval_version() -> str:
    """Raises AblateError when lm-eval is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise AblateError("lm-eval is not installed here: pip install lm_eval") from error


def task_exists(name: str, include_path: str | None = None) -> bool:
    """Whether lm-eval, or a folder of task files of one's own, has a task, group or tag of this name."""
    return _index_with(name, include_path) is not None


def task_names(include_path: str | None = None) -> list[str]:
    """-> every task, group and tag; the first call on a machine reads all of lm-eval's files (about two seconds)."""
    indices = [_whole_index(), *([_own_index(include_path)] if include_path else [])]
    return sorted({name for index in indices for name in (*index.files, *index.tags)})


def sources(task: str, include_path: str | None = None) -> tuple[DataSource, ...]:
    """-> the data sets on the hub that a task, or all tasks of a group or tag, read; none for local files.

    Raises UnknownTask, also for a name inside a group.
    """
    return _sources(task, include_path, _stamp(include_path))


def entries(task: str, include_path: str | None = None) -> tuple[Entry, ...]:
    """-> the tasks that a name stands for (itself, or those of a group or tag), and the groups on the way.

    Raises UnknownTask.
    """
    return tuple(_entries(task, include_path, {}, ()))


def uses_code(include_path: str) -> list[str]:
    """-> the places (`file:line: !function utils.f`) where task files of one's own, or what they include, run Python."""
    places: dict[str, None] = {}
    seen: set[Path] = set()
    for path in _yaml_files(Path(include_path)):
        for found in _code_in(path, seen):
            places.setdefault(found)
    return list(places)


def tasks_folder() -> Path:
    """-> lm-eval's own task files. Raises AblateError when lm-eval is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise AblateError("lm-eval is not installed here: pip install lm_eval")
    return Path(spec.submodule_search_locations[0]) / "tasks"


# looking up


def _index_with(name: str, include_path: str | None) -> Index | None:
    if include_path and name in (own := _own_index(include_path)):
        return own
    if name in (near := _near_index(name)).files:
        return near
    return whole if name in (whole := _whole_index()) else None


@cache
def _near_index(name: str) -> Index:
    """The folder that is named like the task, or like the beginning of its name: most look-ups end here."""
    parts = re.split(r"([_\-:])", name)
    for length in range(len(parts), 0, -2):
        folder = tasks_folder() / "".join(parts[:length])
        if folder.parent == tasks_folder() and folder.is_dir():
            return _scan(folder)
    return Index()


@cache
def _whole_index() -> Index:
    """All of lm-eval's files; kept on disk, for one version in one place."""
    folder = tasks_folder()
    place = hashlib.sha256(f"{folder} {folder.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    kept = disk.user_cache() / f"lm_eval-{lm_eval_version()}-{place}.json"
    saved = disk.read_json(kept)
    if saved is not None:
        return Index(**saved)
    index = _scan(folder)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        disk.write_json(kept, {"files": index.files, "tags": index.tags})
    except OSError:
        pass  # a cache that cannot be kept is made again
    return index


def _own_index(include_path: str) -> Index:
    return _scanned(include_path, _stamp(include_path))


@lru_cache(maxsize=16)
def _scanned(include_path: str, stamp: object) -> Index:
    return _scan(Path(include_path))


def _stamp(include_path: str | None) -> object:
    if include_path is None:
        return None
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in _yaml_files(Path(include_path)))


def _yaml_files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*.yaml") if _IGNORED.isdisjoint(path.parts))
    return sorted(found, key=lambda path: path.as_posix())  # lm-eval's order: the first of two equal names wins


def _scan(folder: Path) -> Index:
    """Reads the few keys that name tasks by their text: parsing 14,000 files takes ten times as long."""
    index = Index()
    for path in _yaml_files(folder):
        said = _keys(path)
        name = said.get("task") if "class" in said or "group" not in said else said["group"]
        if not isinstance(name, str) or name in index.files:
            continue
        index.files[name] = str(path)
        if "class" in said or "group" not in said:
            for tag in _listed(said.get("tag")):
                index.tags.setdefault(tag, []).append(name)
    return index


def _keys(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    said = {key: _value(first, more) for key, first, more in _KEY.findall(text)}
    included: dict[str, Any] = {}
    for name in _listed(said.pop("include", None)):
        included |= _included_keys(path.parent / name)
    return included | said


@cache
def _included_keys(path: Path) -> dict[str, Any]:
    return _keys(path)


def _value(first: str, more: str) -> Any:
    if re.fullmatch(r"[\w.\-]+", first) and not more:
        return first
    try:
        return yaml.load(f"{first}{more}", Loader=_Plain)
    except yaml.YAMLError:
        return None


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


# following groups and includes


def _entries(name: str, include_path: str | None, overrides: dict[str, Any], above: tuple[str, ...]) -> Iterator[Entry]:
    index = _index_with(name, include_path)
    if index is None or name in above:
        raise UnknownTask(_unknown(name, include_path, above))
    if name in index.tags and name not in index.files:
        for member in index.tags[name]:
            yield from _entries(member, include_path, overrides, (*above, name))
        return
    file = Path(index.files[name])
    config = _merged(file)
    is_group = "group" in config and "class" not in config
    yield Entry(name, file, overrides, is_group)
    if is_group:
        yield from _members(config, include_path, overrides, (*above, name))


def _members(
    config: dict[str, Any], include_path: str | None, overrides: dict[str, Any], above: tuple[str, ...]
) -> Iterator[Entry]:
    shared = {key: value for key, value in config.items() if key.startswith("dataset_")} | overrides
    for item in config["task"] if isinstance(config.get("task"), list) else [config.get("task")]:
        if isinstance(item, str):
            yield from _entries(item, include_path, shared, above)
        elif isinstance(item, dict):
            yield from _member(item, include_path, shared, above)


def _member(
    item: dict[str, Any], include_path: str | None, shared: dict[str, Any], above: tuple[str, ...]
) -> Iterator[Entry]:
    own = shared | {key: value for key, value in item.items() if key.startswith("dataset_")}
    name = item.get("group", item.get("task"))
    if "group" in item and _index_with(str(name), include_path) is None:
        yield from _members(item, include_path, own, above)
    else:
        yield from _entries(str(name), include_path, own, above)


def _unknown(name: str, include_path: str | None, above: tuple[str, ...]) -> str:
    inside = f" (a member of {' / '.join(above)})" if above else ""
    return f"lm-eval {lm_eval_version()} has no task {name!r}{inside}.{did_you_mean(name, task_names(include_path))}"


@lru_cache(maxsize=4096)
def _sources(task: str, include_path: str | None, stamp: object) -> tuple[DataSource, ...]:
    found: dict[DataSource, None] = {}
    for entry in entries(task, include_path):
        config = _merged(entry.file) | dict(entry.overrides)
        for source in () if entry.is_group else _source(config, entry.file):
            found.setdefault(source)
    return tuple(found)


def _source(config: dict[str, Any], file: Path) -> Iterator[DataSource]:
    path = config.get("dataset_path") or _in_class(config.get("class"), "DATASET_PATH")
    if path in _FILE_READERS:
        yield from (DataSource(repo, None) for repo in _HUB_FILE.findall(str(config.get("dataset_kwargs"))))
        return
    if not isinstance(path, str) or Path(path).exists() or (file.parent / path).exists():
        return
    name = config.get("dataset_name") or _in_class(config.get("class"), "DATASET_NAME")
    yield DataSource(path, name if isinstance(name, str) else None)


def _in_class(function: Any, constant: str) -> str | None:
    """A task written in Python (`class: !function task.SQuAD2`) names its data set in its class."""
    if not isinstance(function, str):
        return None
    module, _, name = function.rpartition(".")
    source = Path(f"{module}.py")
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    body = text.partition(f"class {name}")[2].partition("\nclass ")[0]
    found = re.search(rf"""^\s+{constant}\b[^=\n]*=\s*["']([^"']+)["']""", body, re.MULTILINE)
    return found[1] if found else None


class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without code: `!function` stays text."""


def _read(path: Path) -> dict[str, Any]:
    class Loader(_Plain):
        pass

    def function(loader: Any, node: yaml.ScalarNode) -> str:
        return str(path.parent / str(node.value))

    Loader.add_constructor("!function", function)
    try:
        read = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AblateError(f"{path}: not a task file that can be read: {error}") from error
    return read if isinstance(read, dict) else {}


def _merged(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path in above:
        raise AblateError(f"{path}: includes itself, by way of {above[-1]}")
    own = _read(path)
    merged: dict[str, Any] = {}
    for name in _listed(own.pop("include", None)):
        merged |= _merged((path.parent / name).resolve(), (*above, path))
    merged.pop("task_list", None)
    return merged | own


def _code_in(path: Path, seen: set[Path]) -> Iterable[str]:
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=_Plain):
            tag = getattr(event, "tag", None)
            if tag and (not tag.startswith("tag:yaml.org,2002:") or "python" in tag):
                yield f"{path}:{event.start_mark.line + 1}: {tag} {getattr(event, 'value', '')}".rstrip()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AblateError(f"{path}: not a task file that can be read: {error}") from error
    for name in _listed(_read(path).get("include")):
        yield from _code_in(path.parent / name, seen)
