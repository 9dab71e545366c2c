"""What a row cost: the work that it alone needs, and its part of what others need too."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ablate.planning.cost_model import CostModel
from ablate.planning.plan import Plan, unique
from ablate.results.collect import Results, RowResult
from ablate.results.stage_times import ON_A_DEVICE, took_of
from ablate.store.job import read_metrics
from ablate.store.stage import Stage


class RowCost(NamedTuple):
    """Of all seeds of a row."""

    own_s: float
    """Device seconds of stages that no other row needs."""
    shared_s: float
    """Device seconds of stages that other rows need too (a teacher's fine-tuning, its cached answers), whole."""
    tokens: int
    """In the losses of the trainings that made its models, each as often as it counted."""
    devices: tuple[str, ...] = ()
    """Models of the devices that the times are of, each once: times of unlike ones are no sum."""
    is_whole: bool = True
    """Whether all of its work is done."""

    @property
    def whole_s(self) -> float:
        """What the row alone would cost."""
        return self.own_s + self.shared_s


def row_cost(results: Results, row: RowResult) -> RowCost | None:
    """-> None before any of its work is done. Rows of several tables that are one run count as one row."""
    took = took_of(results)
    own, shared = _done(results, row)
    if not own + shared:
        return None
    return RowCost(
        own_s=sum(took[stage.key].seconds for stage in own),
        shared_s=sum(took[stage.key].seconds for stage in shared),
        tokens=sum(tokens_of(results.plan, cell.cell.trained) for cell in row.cells if cell.cell.trained),
        devices=tuple(dict.fromkeys(took[stage.key].device for stage in own + shared)),
        is_whole=all(cell.is_done for cell in row.cells),
    )


def row_flops(results: Results, row: RowResult) -> tuple[float, float] | None:
    """-> own and shared, by the plan; None where it does not know those of a stage."""
    cost = CostModel(results.plan)
    parts = [[cost(stage).flops for stage in stages] for stages in _done(results, row)]
    known = [[flops for flops in part if flops is not None] for part in parts]
    return (sum(known[0]), sum(known[1])) if known == parts else None


def _done(results: Results, row: RowResult) -> tuple[list[Stage], list[Stage]]:
    """-> a row's finished stages of work: its own, and those of other rows too."""
    took, users = took_of(results), _users(results)
    done = [stage for stage in _work(results.plan, row) if stage.key in took]
    own = [stage for stage in done if len(users[stage.key]) == 1]
    return own, [stage for stage in done if len(users[stage.key]) > 1]


def _work(plan: Plan, row: RowResult) -> list[Stage]:
    """-> the stages of work behind a row, with the teachers' answers that were kept for it."""
    stages = unique(cell.cell.evaluate for cell in row.cells)
    kept = unique(cache for stage in stages for cache in plan.aids(stage).values())
    every = {stage.key: stage for stage in (*stages, *kept)}
    return [stage for stage in every.values() if stage.kind in ON_A_DEVICE]


def _users(results: Results) -> Mapping[str, set[frozenset[str]]]:
    """-> key of a stage of work -> the runs that need it."""
    if "stage users" not in results.memo:
        users: dict[str, set[frozenset[str]]] = {}
        for row in (row for ablation in results.ablations for row in ablation.rows):
            for stage in _work(results.plan, row):
                users.setdefault(stage.key, set()).add(row.run)
        results.memo["stage users"] = users
    known: Mapping[str, set[frozenset[str]]] = results.memo["stage users"]
    return known


def tokens_of(plan: Plan, stage: Stage) -> int:
    """-> in the losses of a training, each as often as it counted; 0 of any other stage."""
    path = plan.store.folder(stage) / "metrics.jsonl"
    return _tokens_in(path) if path.is_file() else 0


@cache
def _tokens_in(path: Path) -> int:
    """Of a committed stage, whose curve does not change; many tables ask for it."""
    return sum(int(record.get("tokens") or 0) for record in read_metrics(path))
