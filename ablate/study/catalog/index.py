"""Which file defines which task: folders of task files, scanned by their text and remembered."""

import hashlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.study.catalog.taskfile import Plain, listed, plainly_read

_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
_KEY = re.compile(
    r"""^["']?(group|task|tag|include|class)["']?[ \t]*:[ \t]*"""  # a key at the left margin,
    r"""(.*)((?:\n[ \t]*-[ \t].*)*)""",  # its value, and the lines of a list below it
    re.MULTILINE,
)


@dataclass(frozen=True)
class Index:
    """The names that a folder of task files defines."""

    files: dict[str, str] = field(default_factory=dict)
    """Task or group -> its file."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Tag -> its tasks."""

    def __contains__(self, name: object) -> bool:
        return name in self.files or name in self.tags


@cache
def lm_eval_version() -> str:
    """Raises AblateError when lm-eval is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise AblateError("lm-eval is not installed here: pip install lm_eval") from error


@cache
def tasks_folder() -> Path:
    """-> lm-eval's own task files. Raises AblateError when lm-eval is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise AblateError("lm-eval is not installed here: pip install lm_eval")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def index_with(name: str, include_path: str | None) -> Index | None:
    """-> the index that has the name: the study's own folder before lm-eval's."""
    if include_path and name in (own := own_index(include_path)):
        return own
    if name in (near := near_index(name)).files:
        return near
    return whole if name in (whole := whole_index()) else None


def near_index(name: str) -> Index:
    """The folder that is named like the task, or like the beginning of its name: most look-ups end here."""
    parts = re.split(r"([_\-:])", name)
    for length in range(len(parts), 0, -2):
        folder = tasks_folder() / "".join(parts[:length])
        if folder.parent == tasks_folder() and folder.is_dir():
            return _scanned_once(folder)
    return Index()


@cache
def _scanned_once(folder: Path) -> Index:
    return scan(folder)


@cache
def whole_index() -> Index:
    """All of lm-eval's files; kept on disk, for one version in one place."""
    folder = tasks_folder()
    place = hashlib.sha256(f"{folder} {folder.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    kept = disk.user_cache() / f"lm_eval-{lm_eval_version()}-{place}.json"
    saved = disk.read_json(kept)
    if saved is not None:
        return Index(**saved)
    index = scan(folder)
    try:
        disk.make_folder(kept.parent)
        disk.write_json(kept, {"files": index.files, "tags": index.tags})
    except OSError:
        pass  # a cache that cannot be kept is made again
    return index


def own_index(include_path: str) -> Index:
    """A folder of task files of one's own, as it is now."""
    return _scanned(include_path, stamp(include_path))


@lru_cache(maxsize=16)
def _scanned(include_path: str, stamp: object) -> Index:
    return scan(Path(include_path))


def stamp(include_path: str | None) -> object:
    """-> something that differs once a task file of the folder was changed."""
    if include_path is None:
        return None
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in yaml_files(Path(include_path)))


def yaml_files(folder: Path) -> list[Path]:
    """In lm-eval's order, in which the first of two equal names wins."""
    paths = (path for path in folder.rglob("*.yaml") if _IGNORED.isdisjoint(path.parts))
    return sorted(paths, key=lambda path: path.as_posix())


def scan(folder: Path) -> Index:
    """Reads the few keys that name tasks by their text: parsing 14,000 files takes ten times as long."""
    index = Index()
    for path in yaml_files(folder):
        keys = _keys(path)
        is_task = "class" in keys or "group" not in keys
        name = keys.get("task") if is_task else keys["group"]
        if not isinstance(name, str) or name in index.files:
            continue
        index.files[name] = str(path)
        for tag in listed(keys.get("tag")) if is_task else ():
            index.tags.setdefault(tag, []).append(name)
    return index


def _keys(path: Path) -> dict[str, Any]:
    try:
        text = plainly_read(path)
    except AblateError:
        return {}
    keys = {key: _value(first, more) for key, first, more in _KEY.findall(text)}
    included: dict[str, Any] = {}
    for name in listed(keys.pop("include", None)):
        included |= _included_keys(path.parent / name, _changed_at(path.parent / name))
    return included | keys


@cache
def _included_keys(path: Path, changed_at: int | None) -> dict[str, Any]:
    return _keys(path)


def _changed_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _value(first: str, more: str) -> Any:
    if re.fullmatch(r"[\w.\-]+", first) and not more:
        return first
    try:
        return yaml.load(f"{first}{more}", Loader=Plain)
    except yaml.YAMLError:
        return None
