"""What lm-eval's task files say, read without importing lm-eval: which tasks there are and which data they read."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core.errors import AblateError
from ablate.study.catalog.files import files_outside
from ablate.study.catalog.index import index_with, lm_eval_version, own_index, stamp, whole_index, yaml_files
from ablate.study.catalog.metrics import aggregation_names, output_type, possible_metrics
from ablate.study.catalog.task_data import FILES, READERS, Home, HubPlace, Outside, hub_file, hub_set
from ablate.study.catalog.taskfile import merged, places_of_code, texts_in

__all__ = [
    "DataSource",
    "Entry",
    "UnknownTask",
    "aggregation_names",
    "entries",
    "files_outside",
    "generates",
    "is_tag",
    "lm_eval_version",
    "metrics_of",
    "places_outside",
    "sources",
    "sources_of",
    "task_exists",
    "task_names",
    "unknown_task",
    "uses_code",
]


class DataSource(NamedTuple):
    """A data set on the hub that a task reads."""

    path: str
    config: str | None
    revision: str | None = None
    """As the task says it; None: the newest when the study is first run."""

    @property
    def name(self) -> str:
        """By which a task asks for its snapshot."""
        return HubPlace(self.path, self.revision).name


class UnknownTask(AblateError):
    """A task that neither lm-eval nor the study's own folder has."""


class Entry(NamedTuple):
    """A task or group: its file, and what the groups above it override."""

    name: str
    file: Path
    overrides: Mapping[str, Any]
    is_group: bool


def task_exists(name: str, include_path: str | None = None) -> bool:
    """Whether lm-eval, or a folder of task files of one's own, has a task, group or tag of this name."""
    return index_with(name, include_path) is not None


def is_tag(name: str, include_path: str | None = None) -> bool:
    """Whether a name stands for several tasks that are in no group."""
    index = index_with(name, include_path)
    return index is not None and name not in index.files


def task_names(include_path: str | None = None) -> list[str]:
    """-> every task, group and tag; the first call on a machine reads all of lm-eval's files (about a second)."""
    indices = [whole_index(), *([own_index(include_path)] if include_path else [])]
    return sorted({name for index in indices for name in (*index.files, *index.tags)})


def sources(task: str, include_path: str | None = None) -> tuple[DataSource, ...]:
    """-> the data sets on the hub that a task, or all tasks of a group or tag, read; none for local files.

    Raises UnknownTask, also for a name inside a group.
    """
    return _sources(task, include_path, stamp(include_path))


def sources_of(tasks: Iterable[str], include_path: str | None = None) -> tuple[DataSource, ...]:
    """-> the data sets on the hub that several tasks read, each once. Raises UnknownTask."""
    return tuple(dict.fromkeys(source for task in tasks for source in sources(task, include_path)))


def places_outside(task: str, include_path: str | None = None) -> list[str]:
    """-> every place in the files of a task, or of a group's tasks, whose data would be in no key, and why.

    Raises UnknownTask.
    """
    problems: dict[str, None] = {}
    for entry in entries(task, include_path):
        config = merged(entry.file) | dict(entry.overrides)
        try:
            home_of(entry.file, include_path).localized(config)
        except Outside as error:
            problems.setdefault(f"{entry.file}: {error}")
    return list(problems)


def home_of(file: Path, include_path: str | None, snapshots: Mapping[str, Path] | None = None) -> Home:
    """-> where the names of a task file begin: one's own file names what lies beside it."""
    root = Path(include_path) if include_path else None
    return Home(file.parent if root and root in file.parents else None, root, snapshots)


def entries(task: str, include_path: str | None = None) -> tuple[Entry, ...]:
    """-> the tasks that a name stands for (itself, or those of a group or tag), and the groups on the way.

    Raises UnknownTask.
    """
    return tuple(_entries(task, include_path, {}, ()))


def metrics_of(task: str, include_path: str | None = None) -> frozenset[str]:
    """-> the metrics that can be worked out of a task, or of every task of a group or tag. Raises UnknownTask."""
    return frozenset.intersection(*(possible_metrics(file) for file in _files(task, include_path)))


def generates(task: str, include_path: str | None = None) -> bool:
    """Whether a task, or any of a group's, may have answers generated; told by the files. Raises UnknownTask."""
    return any("class" in file or output_type(file) == "generate_until" for file in _files(task, include_path))


def _files(task: str, include_path: str | None) -> list[dict[str, Any]]:
    return [merged(entry.file) for entry in entries(task, include_path) if not entry.is_group]


def uses_code(include_path: str) -> list[str]:
    """-> the places (`file:line: !function utils.f`) where task files of one's own run Python."""
    seen: set[Path] = set()
    return [place for path in yaml_files(Path(include_path)) for place in places_of_code(path, seen)]


def unknown_task(name: str, include_path: str | None = None, above: tuple[str, ...] = ()) -> str:
    """-> what to tell a reader about a name that is no task: the nearest ones, for there are 14,000."""
    inside = f" (a member of {' / '.join(above)})" if above else ""
    near = difflib.get_close_matches(name, task_names(include_path), n=4, cutoff=0.6)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    own = f" {include_path} defines: {', '.join(sorted(own_index(include_path).files)[:12])}." if include_path else ""
    return f"lm-eval {lm_eval_version()} has no task {name!r}{inside}.{hint}{own} `lm-eval ls tasks` lists all."


def _entries(name: str, include_path: str | None, overrides: dict[str, Any], above: tuple[str, ...]) -> Iterator[Entry]:
    index = index_with(name, include_path)
    if index is None or name in above:
        raise UnknownTask(unknown_task(name, include_path, above))
    if name in index.tags and name not in index.files:
        for member in index.tags[name]:
            yield from _entries(member, include_path, overrides, (*above, name))
        return
    file = Path(index.files[name])
    config = merged(file)
    is_group = "group" in config and "class" not in config
    yield Entry(name, file, overrides, is_group)
    if is_group:
        with contextlib.suppress(Outside):  # which is told of the group itself
            config = home_of(file, include_path).localized(config)
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
    if "group" in item and index_with(str(name), include_path) is None:
        yield from _members(item, include_path, own, above)
    else:
        yield from _entries(str(name), include_path, own, above)


@lru_cache(maxsize=4096)
def _sources(task: str, include_path: str | None, stamp: object) -> tuple[DataSource, ...]:
    data_sources: dict[DataSource, None] = {}
    for entry in entries(task, include_path):
        config = merged(entry.file) | dict(entry.overrides)
        for source in () if entry.is_group else _source(config, entry.file, include_path):
            data_sources.setdefault(source)
    return tuple(data_sources)


def _source(config: dict[str, Any], file: Path, include_path: str | None) -> Iterator[DataSource]:
    path = config.get("dataset_path") or _in_class(config.get("class"), "DATASET_PATH")
    kwargs = kwargs if isinstance(kwargs := config.get("dataset_kwargs"), dict) else {}
    if path in READERS:
        places = (hub_file(spelt) for name in FILES for spelt in texts_in(kwargs.get(name)))
        yield from (DataSource(place.repo, None, place.revision) for place in places if place)
        return
    if not isinstance(path, str) or home_of(file, include_path).local_set(path):
        return
    name = config.get("dataset_name") or _in_class(config.get("class"), "DATASET_NAME")
    if place := hub_set(path, kwargs.get("revision")):
        yield DataSource(place.repo, name if isinstance(name, str) else None, place.revision)


def _in_class(function: Any, constant: str) -> str | None:
    """A task written in Python (`class: !function task.SQuAD2`) names its data set in its class."""
    if not isinstance(function, str):
        return None
    module, _, name = function.rpartition(".")
    source = Path(f"{module}.py")
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    body = text.partition(f"class {name}")[2].partition("\nclass ")[0]
    match = re.search(rf"""^\s+{constant}\b[^=\n]*=\s*["']([^"']+)["']""", body, re.MULTILINE)
    return match[1] if match else None
