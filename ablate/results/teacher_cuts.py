"""Rows that learn from a teacher's likeliest tokens alone: what that left out, and the row that learns from all."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ablate.results.cell_files import number
from ablate.results.collect import AblationResult, RowResult
from ablate.store.job import read_metrics
from ablate.store.sizes import fetched_sizes
from ablate.store.store import Store
from ablate.study.field_types import BYTES
from ablate.study.resolve import Setting
from ablate.study.teacher_top_k import bytes_a_token

COSTS = ("teacher_mass_left_out", "teacher_entropy_lost", "teacher_kl_error")
"""Of a step's record, as `training.teacher_top_k` writes it."""


class TeacherCut(NamedTuple):
    """A row whose teacher is cut."""

    row: RowResult
    k: int
    exact: RowResult | None
    """The same recipe with the whole teacher, where the table has it."""
    costs: Mapping[str, float]
    """Means over the tokens of all steps and seeds, in nats but for the probability; none before the first step."""


class BytesAToken(NamedTuple):
    """What a teacher's answer takes where it is kept."""

    hidden: int
    """Whole, as a hidden state."""
    top_k: int


def teacher_cuts(ablation: AblationResult) -> list[TeacherCut]:
    """-> the rows of an ablation that learn from a part of their teacher, in its order."""
    rows = [row for row in ablation.rows if row.row.model == "distill"]
    whole = {id(row): row for row in rows if row.row.setting.distill.teacher_top_k is None}
    return [
        TeacherCut(row, k, next((one for one in whole.values() if _is_exact(one, row)), None), _costs(row))
        for row in rows
        if (k := row.row.setting.distill.teacher_top_k) is not None
    ]


def _is_exact(one: RowResult, row: RowResult) -> bool:
    return _uncut(row.row.setting) == one.row.setting


def _uncut(setting: Setting) -> Setting:
    recipe = setting.distill
    return replace(setting, distill=recipe.model_copy(update={"teacher_top_k": None, "teacher_top_k_rest": "event"}))


def _costs(row: RowResult) -> dict[str, float]:
    sums, num_tokens = dict.fromkeys(COSTS, 0.0), 0
    for tokens, costs in _steps(row):
        num_tokens += tokens
        sums = {name: sums[name] + tokens * costs[name] for name in COSTS}
    return {name: total / num_tokens for name, total in sums.items()} if num_tokens else {}


def _steps(row: RowResult) -> Iterator[tuple[int, dict[str, float]]]:
    """-> loss-bearing tokens and means of every step that was recorded; one that is not finite says nothing."""
    for cell in row.cells:
        for record in read_metrics(cell.curve) if cell.curve else ():
            costs = {name: number(record.get(name)) for name in COSTS}
            if record.get("tokens") and all(map(math.isfinite, costs.values())):
                yield int(record["tokens"]), costs


def bytes_of(cut: TeacherCut, store: Store) -> BytesAToken | None:
    """-> None where the teacher is not here."""
    trained, dtype = cut.row.cells[0].cell.trained, cut.row.row.setting.dtype
    sizes = fetched_sizes(store, trained.inputs["teacher"]) if trained else None
    if sizes is None:
        return None
    return BytesAToken(sizes.hidden * BYTES[dtype], bytes_a_token(min(cut.k, sizes.vocab), dtype))
