"""lm-eval's tasks, built from their files on this machine: pinned data, no network, no code but lm-eval's own."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval import utils
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from ablate.core.errors import StageError
from ablate.core.local_files import local_digest
from ablate.core.time_limit import TooLong
from ablate.study import catalog
from ablate.study.catalog.task_data import FILES, READERS, Home, Outside, hub_set, require_read, why_outside

NUM_TEMPLATES = 1024


class _LocalFactory(TaskFactory):  # type: ignore[misc]  # lm-eval has no types
    """Builds tasks whose data lies on this machine."""

    def __init__(self, snapshots: Mapping[str, Path], include: Path | None) -> None:
        super().__init__()
        self._snapshots = snapshots
        self._include = str(include) if include else None

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        home = catalog.home_of(Path(entry.yaml_path or ""), self._include, self._snapshots)
        return home.localized(config)


class Tasks(TaskManager):  # type: ignore[misc]  # lm-eval has no types
    """Only the folders that the wanted tasks need, read in a millisecond where all of them take seconds."""

    def __init__(self, names: Iterable[str], snapshots: Mapping[str, Path], include: Path | None = None) -> None:
        """`snapshots`: data set on the hub -> its folder here. Raises UnknownTask for a name that is no task."""
        own = [include] if include else []
        entries = [entry for name in names for entry in catalog.entries(name, str(include) if include else None)]
        folders = {entry.file.parent for entry in entries}
        lm_evals = {folder for folder in folders if not any(folder.is_relative_to(one) for one in own)}
        if include and (why := next(catalog.files_outside(include), None)):
            raise StageError(why)
        super().__init__(include_defaults=False, include_path=[*sorted(_outermost(lm_evals)), *own])
        self._factory = _LocalFactory(snapshots, include)
        self._home, self._kept = Home(include, include, snapshots), _cache_of(include)

    def load_one(self, name: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """-> the built task, or group with its tasks, as lm-eval's `evaluate` takes it.

        `overrides`: settings in place of those of its files. Raises StageError when its data cannot be read, or are in
        no key.
        """
        from datasets.exceptions import DatasetsError
        from jinja2 import TemplateError

        of_libraries = DatasetsError, TemplateError
        try:
            with _reads_only(self._home, self._kept):
                return self.load([name] if not overrides else self._overridden(name, overrides))
        except (Outside, TooLong) as error:
            raise StageError(f"task {name} cannot be set up: {error}") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, *of_libraries) as error:
            message = " ".join(str(error).split())[:600]
            raise StageError(f"task {name} cannot be set up ({type(error).__name__}: {message})", "missing") from error

    def _overridden(self, name: str, overrides: Mapping[str, Any]) -> list[Any]:
        """As a group's file says more of a member: over what the member's own file says."""
        built = self._factory.build(self._index[name], overrides=deepcopy(dict(overrides)), registry=self._index)
        return built if isinstance(built, list) else [built]


@contextmanager
def _reads_only(home: Home, kept: str | None) -> Iterator[None]:
    """While it lasts, `datasets` reads what is in the key: whoever asks, and whatever a data set's own files name.

    Data sets on the hub are read from their snapshots, also where a task's Python asks for them. What is made of the
    files of a folder is `kept` under a name of their content: `datasets` itself looks at their times alone.
    """
    from datasets import load

    original, snapshots = load.load_dataset_builder, home.snapshots or {}

    def guarded(path: str, name: str | None = None, **settings: Any) -> Any:
        place = hub_set(path, settings.get("revision")) if path not in READERS else None
        path = str(snapshots[place.name]) if place and place.name in snapshots else path
        _require_place(path, settings, home)
        is_pinned = Path(path) in snapshots.values()  # its commit is in its name
        allowed = {key: value for key, value in settings.items() if key not in _LIBRARYS_OWN}
        builder = original(path, name, cache_dir=None if is_pinned else kept, **allowed)
        files = builder.config.data_files or {}
        require_read((str(file) for split in files.values() for file in split), home)
        return builder

    load.load_dataset_builder = guarded
    try:
        yield
    finally:
        load.load_dataset_builder = original


_LIBRARYS_OWN = ("cache_dir", "download_config", "revision", "storage_options", "token")
"""What `load_dataset` hands on beside a task's own settings, and a task may not say."""


def _require_place(path: str, settings: Mapping[str, Any], home: Home) -> None:
    """Raises Outside for what is neither a reader of named files, nor a folder that is in the key."""
    is_named = any(settings.get(name) for name in FILES)
    is_folder = Path(path).is_absolute() and Path(path).is_dir()
    if not (path in READERS and is_named) and not is_folder:
        raise Outside(f"{path} is no data set that was fetched for this evaluation")
    if is_folder and Path(path) not in (home.snapshots or {}).values():
        why = why_outside(Path(path), home.root) if home.root else "is no data set that was fetched"
        if why:
            raise Outside(f"{path} {why}")


def _cache_of(root: Path | None) -> str | None:
    """-> where `datasets` keeps what it makes of the files of a folder as it is now; its own place without one."""
    from datasets import config

    return str(Path(config.HF_DATASETS_CACHE) / f"ablate-{local_digest(root)[:16]}") if root else None


def _outermost(folders: set[Path]) -> set[Path]:
    """lm-eval reads folders with all below them: one inside another would be read twice."""
    return {folder for folder in folders if folders.isdisjoint(folder.parents)}


@contextmanager
def no_code_of(include: Path | None, *, allow_code: bool) -> Iterator[None]:
    """While it lasts, templates of task files of one's own cannot reach Python.

    Raises StageError, unless `allow_code`, when those files run Python by themselves.
    """
    if include is None or allow_code:
        yield
        return
    places = catalog.uses_code(str(include))
    if places:
        more = f" and {len(places) - 3} places more" if len(places) > 3 else ""
        raise StageError(
            f"these task files run Python of their own: {'; '.join(places[:3])}{more}. Read it, then allow it with "
            "`evaluate.allow_code: true`"
        )
    before = utils.env
    utils.env = _sandboxed(before)
    try:
        yield
    finally:
        utils.env = before


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """While it lasts, lm-eval's environment compiles a template once, not for every question."""
    env = utils.env
    env.from_string = lru_cache(NUM_TEMPLATES)(env.from_string)
    try:
        yield
    finally:
        del env.from_string


def _sandboxed(env: Any) -> Any:
    from jinja2.sandbox import SandboxedEnvironment

    sandbox = SandboxedEnvironment(
        loader=env.loader, undefined=env.undefined, keep_trailing_newline=env.keep_trailing_newline
    )
    sandbox.filters |= env.filters
    return sandbox
