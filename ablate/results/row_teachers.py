"""Whom a distilled row has learnt from, and the student that it is held against: both as rows of the study's tables."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ablate.results.collect import AblationResult, Results, RowResult
from ablate.store.stage import Stage

TEACHER = re.compile(r"teacher(_\d+)?")
"""Names a distillation's inputs that are teachers; their adapters, caches and rows have more in their names."""


class WeightedRow(NamedTuple):
    """One of a row's teachers."""

    row: RowResult
    weight: float
    """Its share in the distillation; all of them come to 1."""


def teachers_of_row(results: Results, ablation: AblationResult, row: RowResult) -> tuple[WeightedRow, ...] | None:
    """-> of a distilled row; None where one of them was not evaluated.

    They are found by the stages that made them, in the row's own table first.
    """
    trained = row.cells[0].cell.trained
    names = [name for name in trained.inputs if TEACHER.fullmatch(name)] if trained else []
    if trained is None or not names:
        return None
    rows = [_evaluated(results, ablation, _parts(trained, name)) for name in sorted(names, key=_number)]
    pairs = zip(rows, _weights(trained, len(names)), strict=True)
    known = tuple(WeightedRow(row, weight) for row, weight in pairs if row)
    return known if len(known) == len(names) else None


def student_of(ablation: AblationResult, row: RowResult) -> RowResult | None:
    """-> the row's control where that is a student alone, else its pair's fine-tuned student, or untrained one."""
    control = ablation.control_of(row.row)
    of_pair = [other for other in ablation.rows if other.row.setting.pair == row.row.setting.pair]
    named = (
        other for model in ("student/finetuned", "student/baseline") for other in of_pair if other.row.model == model
    )
    others = (other for other in named if not other.is_replicate)
    is_student = control is not None and control.row.model.startswith("student/")
    return control if is_student else next(others, None)


def _number(name: str) -> int:
    return int(name.partition("_")[2] or 1)


def _weights(trained: Stage, num: int) -> list[float]:
    settings: Any = trained.payload["settings"]
    return [one["weight"] for one in settings["recipe"]["teachers"]] if num > 1 else [1.0]


def _parts(trained: Stage, name: str) -> tuple[str, ...]:
    """-> the keys of a teacher's weights and of its adapter, if it has one."""
    inputs = (trained.inputs.get(one) for one in (name, f"{name}_adapter"))
    return tuple(stage.key for stage in inputs if stage)


def _evaluated(results: Results, ablation: AblationResult, parts: tuple[str, ...]) -> RowResult | None:
    rows = (row for row in _rows(results, ablation) if row.row.model != "distill")
    return next((row for row in rows if row.done and _model(row.done[0].cell.evaluate) == parts), None)


def _rows(results: Results, first: AblationResult) -> Iterator[RowResult]:
    yield from first.rows
    for ablation in results.ablations:
        if ablation.name != first.name:
            yield from ablation.rows


def _model(evaluate: Stage) -> tuple[str, ...]:
    """-> the keys of the weights that an evaluation loads, and of the adapters on top of them."""
    names = ["model", *sorted(name for name in evaluate.inputs if name.startswith("adapter_"))]
    return tuple(evaluate.inputs[name].key for name in names)
