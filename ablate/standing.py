"""What `status` shows: where every stage stands, once, or again and again until the run is over."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate import hold
from ablate.planning import Plan
from ablate.stage import Stage
from ablate.status import State, states
from ablate.views import STYLES, TROUBLE, console_of
from ablate.watch import duration

EVERY_S = 2.0
LEAST = (12, 12, 7, 20, 4)
"""Characters of each column, where the terminal is narrow."""
FIRST = ("running", "failed", "damaged", "diverged", "blocked", "waiting", "done")
"""What a reader of a short list wants to see first."""


def status_record(plan: Plan) -> dict[str, Any]:
    """-> everything that `status --json` says."""
    state_of = states(plan.stages, plan.store)
    stages = [
        {"key": stage.key, "kind": stage.kind, "label": plan.label(stage)} | state_of[stage.key]._asdict()
        for stage in plan.stages
    ]
    cells = [{"name": cell.name, "state": state_of[cell.evaluate.key].word} for cell in plan.cells]
    return {"study": plan.study.name, "driver": _driver(plan), "stages": stages, "cells": cells}


def print_status(plan: Plan) -> None:
    """One line a stage; why and the last log lines under what failed."""
    console, state_of = console_of(), states(plan.stages, plan.store)
    console.print(_table(plan, plan.stages, state_of))
    for stage in plan.stages:
        state = state_of[stage.key]
        if state.word in TROUBLE:
            lines = [f"\n{plan.label(stage)} ({stage.key12}): {state.why}", *(f"    {line}" for line in state.log_tail)]
            console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
    console.print(f"\n{_summary(plan, state_of)}", highlight=False)


def watch(plan_now: Callable[[], Plan], *, as_json: bool) -> None:
    """Shows how a run goes, until it is over: in place on a terminal; elsewhere again whenever something has changed.

    For a machine: one line of JSON a change.
    """
    console = console_of()
    if as_json or not console.is_terminal:
        return _tell_changes(plan_now, _print_record if as_json else print_status)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while _driver(plan := plan_now()):
            live.update(_short(plan, console.height), refresh=True)
            time.sleep(EVERY_S)
    return print_status(plan)


def _print_record(plan: Plan) -> None:
    print(json.dumps(status_record(plan)))


def _tell_changes(plan_now: Callable[[], Plan], show: Callable[[Plan], None]) -> None:
    before: dict[str, str] = {}
    while True:
        is_over = _driver(plan := plan_now()) is None
        now = {key: state.word for key, state in states(plan.stages, plan.store).items()}
        if now != before or is_over:
            show(plan)
            sys.stdout.flush()
        if is_over:
            return
        before = now
        time.sleep(EVERY_S)


def _short(plan: Plan, height: int) -> RenderableType:
    """As many stages as the terminal has lines for, what runs first."""
    state_of = states(plan.stages, plan.store)
    room = max(3, height - 5)
    ordered = sorted(plan.stages, key=lambda stage: FIRST.index(state_of[stage.key].word))
    left_out = len(ordered) - room
    more = f"and {left_out} more stages; " if left_out > 0 else ""
    return Group(_table(plan, ordered[:room], state_of, is_cut=True), Text(f"\n{more}{_summary(plan, state_of)}"))


def _table(plan: Plan, stages: Sequence[Stage], state_of: Mapping[str, State], *, is_cut: bool = False) -> Table:
    table = Table("stage", "key", "state", "progress", "left", box=None)
    for column, least in zip(table.columns, LEAST, strict=True) if is_cut else ():
        column.no_wrap, column.min_width = True, least
    for stage in stages:
        state = state_of[stage.key]
        left = duration(state.eta_s) if state.eta_s is not None else ""
        word = f"[{STYLES.get(state.word, 'default')}]{state.word}[/]"
        table.add_row(Text(plan.label(stage)), stage.key12, word, Text(state.progress), left)
    return table


def _summary(plan: Plan, state_of: Mapping[str, State]) -> str:
    words = [state_of[cell.evaluate.key].word for cell in plan.cells]
    cells = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    driver = _driver(plan)
    return f"{len(words)} cells: {cells}; {f'run by {driver}' if driver else 'no run is on'}"


def _driver(plan: Plan) -> str | None:
    """-> who runs the study now."""
    driver = hold.driver_of(plan.store, plan.study.name)
    return str(driver) if driver else None
