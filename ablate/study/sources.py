"""Where the rows of a study come from: repositories on the hub, and what lies on this machine."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ablate.core.hub import Repo
from ablate.study import catalog
from ablate.study.cells import Row
from ablate.study.named_models import named, with_bases
from ablate.study.resolve import Setting
from ablate.study.schema import TeacherOrStudent


def repositories(rows: Iterable[Row]) -> tuple[Repo, ...]:
    """-> every hub repository that the rows need, each once."""
    return tuple(dict.fromkeys(repo for setting in _with_other_sources(rows) for repo in _repositories(setting)))


def local_sources(rows: Iterable[Row]) -> tuple[str, ...]:
    """-> every local file and folder that the rows need, each once."""
    paths: dict[str, None] = {}
    for setting in _with_other_sources(rows):
        models = (one.model for one in _models(setting))
        for path in (*models, setting.data.source, setting.evaluate.include_path):
            if path and is_local(path):
                paths.setdefault(path)
    return tuple(paths)


def _with_other_sources(rows: Iterable[Row]) -> Iterable[Setting]:
    """-> one setting of each choice of models, data and tasks: what these read is looked up on the disk."""
    settings: dict[tuple[Any, ...], Setting] = {}
    for setting in (row.setting for row in rows):
        data, asked = setting.data, setting.evaluate
        of_models = (named(ref) for ref in models_of(setting))
        of_data = data.source, data.revision, asked.task_names, asked.include_path
        settings.setdefault((*of_models, *of_data), setting)
    return settings.values()


def _repositories(setting: Setting) -> Iterator[Repo]:
    for ref in _models(setting):
        if not is_local(ref.model):
            yield Repo("model", ref.model, ref.revision)
    if not is_local(setting.data.source):
        yield Repo("dataset", setting.data.source, setting.data.revision)
    for source in task_sources(setting):
        yield Repo("dataset", source.path, source.revision)


def _models(setting: Setting) -> Iterator[TeacherOrStudent]:
    """-> teacher and student, each with what it is merged on."""
    yield from (one for ref in models_of(setting) for one in with_bases(ref))


def models_of(setting: Setting) -> tuple[TeacherOrStudent, ...]:
    """-> the pair's teacher and student, and the teachers of other pairs."""
    others = (one.model for one in setting.teachers if one.pair != setting.pair)
    return (setting.teacher, setting.student, *others)


def task_sources(setting: Setting) -> tuple[catalog.DataSource, ...]:
    """-> the data sets on the hub that the tasks of a row read, each once."""
    return catalog.sources_of(setting.evaluate.task_names, setting.evaluate.include_path)


@cache
def is_local(source: str) -> bool:
    """Whether a model or data set lies on this machine: in a study that is loaded its path is absolute."""
    return Path(source).is_absolute()
