"""What `status` prints: where every stage stands, once, or again and again until the run is over."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.cli.console import TROUBLE, console_of_stdout, counted, print_plainly, styled
from ablate.core.errors import grouped_by_text
from ablate.core.failures import without_particulars
from ablate.core.text import duration
from ablate.execution import study_lock
from ablate.execution.detached import detach
from ablate.execution.driver_records import DriverWatch, Sighting
from ablate.execution.executors.base import LOCAL
from ablate.execution.life_signs import LifeSigns
from ablate.execution.status import State, states
from ablate.execution.whereabouts import Whereabouts, by_profile
from ablate.planning.plan import Plan
from ablate.store.stage import Stage

EVERY_S = 2.0
QUEUE_EVERY_S = 5.0
LEAST = (12, 12, 7, 16, 4, 12)
"""Characters of each column, where the terminal is narrow."""
FIRST = ("running", "failed", "damaged", "diverged", "blocked", "waiting", "done")
"""What a reader of a short list wants to see first."""


class StudyStatus(NamedTuple):
    """A study at one moment."""

    plan: Plan
    state_of: Mapping[str, State]
    driver: str | None
    """Who runs it."""


class Watch:
    """Looks at a study again and again, and remembers when it has seen signs of life."""

    def __init__(self) -> None:
        self._driver: DriverWatch | None = None
        self._signs = LifeSigns()
        self._coming: str | None = None
        self._ask_at = 0.0
        """When a cluster is asked again whether a driver will come."""

    def look(self, plan: Plan) -> StudyStatus:
        if self._driver is None:
            self._driver = DriverWatch(plan.store, plan.study.name)
            study_lock.sighted(self._driver, study_lock.READER_S)
        seen = self._driver.look()
        driver = _driver_in_words(seen) if seen else self._expected(plan)
        return StudyStatus(plan, states(plan.stages, plan.store, self._signs), driver)

    def _expected(self, plan: Plan) -> str | None:
        """-> the driver that will come from a cluster's queue, or ends; the cluster is not asked at every look."""
        if time.monotonic() >= self._ask_at:
            coming = detach.expected(plan.store, plan.study.name)
            self._coming = str(coming) if coming else None
            self._ask_at = time.monotonic() + QUEUE_EVERY_S
        return self._coming


def look(plan: Plan) -> StudyStatus:
    return Watch().look(plan)


def _driver_in_words(seen: Sighting) -> str:
    silence = "" if seen.is_sure else f", no sign of life for {duration(seen.silent_s)}"
    return f"{seen}{silence}"


def status_record(now: StudyStatus) -> dict[str, Any]:
    """-> everything that `status --json` says."""
    plan, state_of, driver = now
    stages = [
        {"key": stage.key, "kind": stage.kind, "label": plan.label(stage)} | _state_record(state_of[stage.key])
        for stage in plan.stages
    ]
    cells = [{"name": cell.name, "state": state_of[cell.evaluate.key].word} for cell in plan.cells]
    profiles = [profile._asdict() for profile in by_profile(_places(state_of))]
    return {"study": plan.study.name, "driver": driver, "profiles": profiles, "stages": stages, "cells": cells}


def _state_record(state: State) -> dict[str, Any]:
    return state._asdict() | {"where": state.where._asdict() if state.where else None}


def _places(state_of: Mapping[str, State]) -> list[Whereabouts]:
    return [state.where for state in state_of.values() if state.where]


def print_status(now: StudyStatus) -> None:
    """One line a stage; why and the last log lines under what failed, once for all that failed alike."""
    console, plan = console_of_stdout(), now.plan
    console.print(_table(now, plan.stages))
    for names, why, log_tail in _troubles(now):
        lines = [f"\n{names}: {why}", *(f"    {line}" for line in log_tail)]
        print_plainly(console, "\n".join(lines))
    console.print(f"\n{_summary(now)}", highlight=False)


def _troubles(now: StudyStatus) -> Iterator[tuple[str, str, Sequence[str]]]:
    """-> stages that failed alike, why, and the end of the first one's log."""
    troubled = [stage for stage in now.plan.stages if now.state_of[stage.key].word in TROUBLE]
    pairs = [(f"{now.plan.label(stage)} ({stage.key12})", now.state_of[stage.key].why) for stage in troubled]
    firsts: dict[str, Stage] = {}
    for stage, (_, why) in zip(troubled, pairs, strict=True):
        firsts.setdefault(without_particulars(why), stage)
    grouped = grouped_by_text(pairs, likeness=without_particulars)
    for (names, why), first in zip(grouped, firsts.values(), strict=True):
        yield names, why, now.state_of[first.key].log_tail


def watch(plan_now: Callable[[], Plan], *, as_json: bool) -> None:
    """Shows how a run goes, until it is over: in place on a terminal; elsewhere again whenever something has changed.

    For a machine: one line of JSON a change.
    """
    console, one = console_of_stdout(), Watch()
    if as_json or not console.is_terminal:
        _print_changes(lambda: one.look(plan_now()), _print_record if as_json else print_status)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (now := one.look(plan_now())).driver:
            live.update(short(now, console.height), refresh=True)
            time.sleep(EVERY_S)
    print_status(now)


def _print_record(now: StudyStatus) -> None:
    print(json.dumps(status_record(now)))


def _print_changes(look_now: Callable[[], StudyStatus], show: Callable[[StudyStatus], None]) -> None:
    before: dict[str, str] = {}
    while True:
        now = look_now()
        words = {key: _word(state) for key, state in now.state_of.items()}
        if words != before or now.driver is None:
            show(now)
            sys.stdout.flush()
        if now.driver is None:
            return
        before = words
        time.sleep(EVERY_S)


def short(now: StudyStatus, height: int) -> RenderableType:
    """As many stages as the terminal has lines for, what runs first."""
    room = max(3, height - 5)
    ordered = sorted(now.plan.stages, key=lambda stage: FIRST.index(now.state_of[stage.key].word))
    left_out = len(ordered) - room
    more = f"and {left_out} more stages; " if left_out > 0 else ""
    return Group(_table(now, ordered[:room], is_cut=True), Text(f"\n{more}{_summary(now)}"))


def _table(now: StudyStatus, stages: Sequence[Stage], *, is_cut: bool = False) -> Table:
    is_placed = any(state.where for state in now.state_of.values())
    table = Table("stage", "key", "state", "progress", "left", *(["where"] if is_placed else []), box=None)
    for column, least in zip(table.columns, LEAST, strict=False) if is_cut else ():
        column.no_wrap, column.min_width = True, least
    for stage in stages:
        state = now.state_of[stage.key]
        left = duration(state.eta_s) if state.eta_s is not None else ""
        where = [Text(str(state.where or ""))] if is_placed else []
        progress = Text(state.progress)
        table.add_row(Text(now.plan.label(stage)), stage.key12, styled(_word(state)), progress, left, *where)
    return table


def _word(state: State) -> str:
    """-> of what is begun, whether it still stands in its cluster's queue."""
    return "queued" if state.where and state.where.is_queued else state.word


def _summary(now: StudyStatus) -> str:
    words = [now.state_of[cell.evaluate.key].word for cell in now.plan.cells]
    where = "".join(f"{profile}; " for profile in by_profile(_places(now.state_of)) if profile.kind != LOCAL)
    driver = f"run by {now.driver}" if now.driver else "no run is on"
    return f"{len(words)} cells: {counted(words)}; {where}{driver}"
