"""The training rows of a plan: each set once, the pairs that train on it, and what of it lies on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.errors import AblateError, did_you_mean
from ablate.planning.plan import Cell, Plan
from ablate.stages.distill import teachers_of
from ablate.stages.fetch import FetchSettings
from ablate.stages.rows import RowsSettings
from ablate.store.fetched import fetched_path
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.study.data_settings import Data


@dataclass(frozen=True)
class Located:
    """Something that a fetch stage brings: where it lies, if it is here."""

    name: str
    path: Path | None
    trust_remote_code: bool


@dataclass(frozen=True)
class RowSet:
    """Rows that are rendered for one student."""

    name: str
    pairs: tuple[str, ...]
    data: Data
    source: Located
    student: Located
    teachers: tuple[Located, ...]
    folder: Path | None
    """The folder of the stage that made them, once it is committed."""

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage counted; empty where it is not made."""
        return (disk.read_json(self.folder / "out" / "summary.json") or {}) if self.folder else {}

    @property
    def notes(self) -> list[str]:
        """What the stage told of the rows."""
        provenance = (read_sound(self.folder, "stage.json").get("provenance") or {}) if self.folder else {}
        return list((provenance.get("notes") or {}).get("rows") or ())


def row_sets(plan: Plan, pair: str | None = None) -> list[RowSet]:
    """-> the sets of rows that a plan trains on, of one pair where one is named.

    Raises AblateError for a pair that is not in the study, or where nothing is trained.
    """
    if pair is not None and pair not in plan.study.pairs:
        raise AblateError(f"--pair {pair}: no such pair.{did_you_mean(pair, plan.study.pairs)}")
    cells_by_key: dict[str, list[Cell]] = {}
    stages: dict[str, Stage] = {}
    for cell, stage in _trained_on(plan):
        if pair in (None, cell.row.setting.pair):
            stages[stage.key] = stage
            cells_by_key.setdefault(stage.key, []).append(cell)
    if not stages:
        raise AblateError(f"{plan.study.name}: no row of {pair or 'its tables'} is trained, so there are no rows")
    return [_row_set(plan, stage, cells_by_key[key]) for key, stage in stages.items()]


def _trained_on(plan: Plan) -> Iterator[tuple[Cell, Stage]]:
    for cell in plan.cells:
        for stage in cell.trained.walk() if cell.trained else ():
            if isinstance(stage.settings, RowsSettings):
                yield cell, stage


def _row_set(plan: Plan, stage: Stage, cells: list[Cell]) -> RowSet:
    settings = stage.settings
    assert isinstance(settings, RowsSettings)
    trained = [cell.trained for cell in cells if cell.trained and "teacher" in cell.trained.inputs]
    readers = [stage for stage in trained if "teacher_rows" not in stage.inputs]  # of the student's tokens
    teachers = {stage.inputs[name].key: stage.inputs[name] for stage in readers for name in teachers_of(stage)}
    return RowSet(
        name=plan.label(stage).removeprefix("rows "),
        pairs=tuple(dict.fromkeys(cell.row.setting.pair for cell in cells)),
        data=settings.data,
        source=_located(plan, stage.inputs["data"]),
        student=_tokenizer_of(plan, stage.inputs["student"]),
        teachers=tuple(_tokenizer_of(plan, teacher) for teacher in teachers.values()),
        folder=plan.store.folder(stage) if plan.store.done(stage) else None,
    )


def _located(plan: Plan, fetch: Stage) -> Located:
    settings = fetch.settings
    assert isinstance(settings, FetchSettings)
    manifest = read_sound(plan.store.folder(fetch), "out/manifest.json")
    path = fetched_path(manifest) if manifest else Path(settings.path or "")
    is_here = bool(manifest or settings.path) and path.exists()
    return Located(plan.label(fetch).removeprefix("fetch "), path if is_here else None, settings.trust_remote_code)


def _tokenizer_of(plan: Plan, fetch: Stage) -> Located:
    """-> the model, where its tokenizer lies: an adapter's own goes before its base's."""
    model = _located(plan, fetch)
    if "base" not in fetch.inputs or (model.path and (model.path / "tokenizer_config.json").is_file()):
        return model
    return replace(_tokenizer_of(plan, fetch.inputs["base"]), name=model.name)
