"""lm-eval's tasks, built from their files on this machine: pinned data, no network, no code but lm-eval's own."""

import re
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
from ablate.study import catalog

NUM_TEMPLATES = 1024
_HUB_FILE = re.compile(r"^hf://datasets/([^/]+/[^/@]+)(?:@[^/]+)?/")


class _LocalFactory(TaskFactory):  # type: ignore[misc]  # lm-eval has no types
    """Builds tasks whose data lies on this machine."""

    def __init__(self, snapshots: Mapping[str, Path], include: Path | None) -> None:
        super().__init__()
        self._snapshots = snapshots
        self._include = include

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        is_own = self._include is not None and entry.yaml_path and self._include in Path(entry.yaml_path).parents
        return self._localized(config, Path(entry.yaml_path).parent if is_own else None)

    def _localized(self, config: dict[str, Any], folder: Path | None) -> dict[str, Any]:
        """A task's settings, or a group's with those of its members inside."""
        localized = dict(config)
        if isinstance(path := config.get("dataset_path"), str):
            localized["dataset_path"] = str(self._snapshots.get(path) or self._beside(folder, path) or path)
        if isinstance(kwargs := config.get("dataset_kwargs"), dict):
            localized["dataset_kwargs"] = {key: self._files(value, folder) for key, value in kwargs.items()}
        if isinstance(members := config.get("task"), list):
            localized["task"] = [self._localized(one, folder) if isinstance(one, dict) else one for one in members]
        return localized

    def _files(self, value: Any, folder: Path | None) -> Any:
        """File names of `data_files`: of a pinned data set, or relative to the task's own file."""
        if isinstance(value, dict):
            return {key: self._files(item, folder) for key, item in value.items()}
        if isinstance(value, list):
            return [self._files(item, folder) for item in value]
        if isinstance(value, str) and (hub := _HUB_FILE.match(value)) and hub[1] in self._snapshots:
            return str(self._snapshots[hub[1]] / value[hub.end() :])
        return str(self._beside(folder, value) or value) if isinstance(value, str) else value

    def _beside(self, folder: Path | None, name: str) -> Path | None:
        """-> a file or folder beside the task's file, or below the folder of task files."""
        places = [folder / name, self._include / name] if folder and self._include else []
        beside = next((path.resolve() for path in places if path.exists()), None)
        if beside and self._include and self._include.resolve() not in beside.parents:
            raise StageError(
                f"a task file in {folder} reads {name}, which lies outside {self._include}: put it inside, so that the "
                "results are named by its content too"
            )
        return beside


class Tasks(TaskManager):  # type: ignore[misc]  # lm-eval has no types
    """Only the folders that the wanted tasks need, read in a millisecond where all of them take seconds."""

    def __init__(self, names: Iterable[str], snapshots: Mapping[str, Path], include: Path | None = None) -> None:
        """`snapshots`: data set on the hub -> its folder here. Raises UnknownTask for a name that is no task."""
        own = [include] if include else []
        entries = [entry for name in names for entry in catalog.entries(name, str(include) if include else None)]
        folders = {entry.file.parent for entry in entries}
        lm_evals = {folder for folder in folders if not any(folder.is_relative_to(one) for one in own)}
        super().__init__(include_defaults=False, include_path=[*sorted(_outermost(lm_evals)), *own])
        self._factory = _LocalFactory(snapshots, include)

    def load_one(self, name: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """-> the built task, or group with its tasks, as lm-eval's `evaluate` takes it.

        `overrides`: settings in place of those of its files. Raises StageError when its data cannot be read.
        """
        from datasets.exceptions import DatasetsError
        from jinja2 import TemplateError

        try:
            return self.load([name] if not overrides else self._overridden(name, overrides))
        except (OSError, ValueError, KeyError, ImportError, DatasetsError, TemplateError) as error:
            message = " ".join(str(error).split())[:600]
            raise StageError(f"task {name} cannot be set up ({type(error).__name__}: {message})", "missing") from error

    def _overridden(self, name: str, overrides: Mapping[str, Any]) -> list[Any]:
        """As a group's file says more of a member: over what the member's own file says."""
        built = self._factory.build(self._index[name], overrides=deepcopy(dict(overrides)), registry=self._index)
        return built if isinstance(built, list) else [built]


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
