"""What `plan` prints: the stages and what they come to; for --json the same as plain data."""

from typing import Any

from rich.table import Table

from ablate.cli.console import TROUBLE, console_of_stdout, counted, print_plainly, styled
from ablate.core.errors import grouped_by_text
from ablate.core.failures import without_particulars
from ablate.core.text import duration
from ablate.execution.forecast import Outlook, outlook
from ablate.execution.profiles import Profile
from ablate.execution.status import State, states
from ablate.planning.cost_model import CostModel
from ablate.planning.plan import Plan
from ablate.planning.row_notes import row_notes
from ablate.planning.visible_differences import visible_differences
from ablate.planning.warnings import plan_warnings
from ablate.store.kind import Cost
from ablate.store.stage import Stage

UNFORESEEN = "how much work that is will be known once models and rows are here: `ablate run` begins with them"


def plan_record(
    plan: Plan,
    num_cards: tuple[int, ...] | None = None,
    warnings: tuple[str, ...] = (),
    profiles: tuple[Profile, ...] = (),
) -> dict[str, Any]:
    """-> everything that `plan --json` says."""
    state_of = states(plan.stages, plan.store)
    ahead = outlook(plan, state_of, num_cards, profiles)
    costs = ahead.costs
    return {
        "study": plan.study.name,
        "is_provisional": plan.is_provisional,
        "warnings": [*warnings, *plan_warnings(plan), *ahead.warnings()],
        "notes": [*plan.notes, *ahead.notes()],
        "rows": list(row_notes(plan)),
        "cells": [{"name": cell.name, "evaluate": cell.evaluate.key} for cell in plan.cells],
        "stages": [_stage_record(plan, stage, state_of[stage.key], costs) for stage in plan.stages],
        "seconds_left": _seconds_left(plan, state_of, costs),
        "forecasts": [forecast._asdict() for forecast in ahead.forecasts],
        "profiles": [forecast.record() for forecast in ahead.by_profile],
        "smallest_visible_difference": visible_differences(plan.study),
    }


def _stage_record(plan: Plan, stage: Stage, state: State, costs: CostModel) -> dict[str, Any]:
    return {
        "key": stage.key,
        "kind": stage.kind,
        "label": plan.label(stage),
        "state": state.word,
        "why": state.why,
        "is_provisional": stage.is_provisional,
        "needed_by": [cell.name for cell in plan.needed_by[stage.key]],
        "cost": _cost_record(costs(stage), costs.planned_s(stage)),
        "payload": stage.payload,
    }


def _cost_record(cost: Cost, seconds: float) -> dict[str, Any]:
    tokens, flops, disk_bytes, held = cost
    work = {"tokens": tokens, "flops": flops, "disk_bytes": disk_bytes, "seconds": seconds}
    return work | {"memory_bytes": held and held.estimate, "weights_bytes": held and held.weights}


def _seconds_left(plan: Plan, state_of: dict[str, State], costs: CostModel) -> float:
    return sum(costs.seconds(stage) for stage in plan.stages if not state_of[stage.key].is_over)


def print_plan(
    plan: Plan,
    num_cards: tuple[int, ...] | None = None,
    warnings: tuple[str, ...] = (),
    profiles: tuple[Profile, ...] = (),
) -> None:
    """The stages as a table, then what they come to; `warnings` beside those of the plan."""
    console, state_of = console_of_stdout(), states(plan.stages, plan.store)
    ahead = outlook(plan, state_of, num_cards, profiles)
    costs = ahead.costs
    table = Table("stage", "key", "state", "cells", "tokens", "TFLOP", "disk", "memory", "time", box=None)
    for stage in plan.stages:
        key = f"{stage.key12}{'?' if stage.is_provisional else ''}"
        num_cells = str(len(plan.needed_by[stage.key]))
        cost_columns = _cost_columns(costs(stage), costs.seconds(stage))
        table.add_row(plan.label(stage), key, styled(state_of[stage.key].word), num_cells, *cost_columns)
    console.print(table)
    for line in (*_plan_notes(plan, state_of, ahead), *(f"warning: {warning}" for warning in warnings)):
        print_plainly(console, line)


def _cost_columns(cost: Cost, seconds: float) -> tuple[str, ...]:
    tokens = f"{cost.tokens:,}" if cost.tokens else ""
    flops = f"{cost.flops / 1e12:,.2f}" if cost.flops else ""
    time = duration(seconds) if cost.flops is not None else ""  # else nothing but what any stage takes is known
    return tokens, flops, _bytes(cost.disk_bytes), _bytes(cost.held.estimate if cost.held else None), time


def _plan_notes(plan: Plan, state_of: dict[str, State], ahead: Outlook) -> list[str]:
    counts = counted([state.word for state in state_of.values()])
    seconds_left = duration(_seconds_left(plan, state_of, ahead.costs))
    left = f"about {seconds_left} of work left on one device" if ahead.is_foreseen else UNFORESEEN
    notes = [
        "",
        f"{len(plan.cells)} cells; {len(plan.work)} trainings and evaluations ({plan.num_by_hand} table by table)",
        f"{counts}; {left}",
    ]
    notes += [*filter(None, [str(ahead)]), *ahead.notes()]
    if plan.is_provisional:
        notes.append("keys with ? are provisional: they hold the digest of rows that are not tokenised yet")
    troubled = [stage for stage in plan.stages if state_of[stage.key].word in TROUBLE]
    whys = ((plan.label(stage), state_of[stage.key].why) for stage in troubled)
    notes += [f"{labels}: {why}" for labels, why in grouped_by_text(whys, likeness=without_particulars)]
    visible = visible_differences(plan.study)
    notes += [f"{task}: differences under about {least:.3f} will not be seen" for task, least in visible.items()]
    notes += [*plan.notes, *row_notes(plan)]
    return notes + [f"warning: {warning}" for warning in (*plan_warnings(plan), *ahead.warnings())]


def _bytes(num: int | None) -> str:
    if not num:
        return ""
    size = float(num)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
