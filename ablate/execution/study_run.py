"""A study brought to its end: pinned, fetched, planned for good, run."""

import contextlib
import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ablate.core.errors import AblateError, grouped_by_text
from ablate.core.failures import without_particulars
from ablate.execution.detached.driver_host import EXPENDABLE
from ablate.execution.driver import Driver, Summary, driving
from ablate.execution.executors.base import LOCAL
from ablate.execution.fleet import Fleet, fleet_of
from ablate.execution.live_view import PlainLog, run_listener
from ablate.execution.outcomes import Outcome
from ablate.execution.profiles import HERE, Profile
from ablate.execution.run_context import Options, RunListener
from ablate.execution.status import states
from ablate.execution.trackers.base import MakeTracker
from ablate.execution.trackers.tracked_listener import TrackedListener, makers_of
from ablate.machine import lock_folders
from ablate.machine.slots import Placing, Slot
from ablate.planning.cost_model import CostModel, device_of, devices_of
from ablate.planning.disk_choice import with_speeds
from ablate.planning.module_check import require_layers, require_modules
from ablate.planning.plan import Cell, Plan, unique
from ablate.planning.project import Project
from ablate.planning.quantize_check import require_quantizer
from ablate.planning.row_notes import row_notes
from ablate.planning.tokenizer_check import require_chat_templates, require_equal_tokenizers
from ablate.planning.vllm_check import require_vllm
from ablate.planning.warnings import plan_warnings
from ablate.store.kind import KINDS
from ablate.store.stage import Stage


@dataclass(frozen=True)
class RunOptions:
    """What `run` takes beside the study; see `ablate run --help`."""

    only: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = (HERE,)
    """Where stages may run; what fetches may run here in any case."""
    placing: Placing = field(default_factory=Placing)
    """Of this machine."""
    trackers: tuple[str, ...] = ()
    """NAME or NAME:WHERE, as in TRACKERS."""
    is_keep_going: bool = False
    is_fail_fast: bool = False
    is_take_over: bool = False
    """A study of another file that was run under the name gives it up."""


class StudyRun(NamedTuple):
    """What came of a run."""

    summary: Summary
    plan: Plan
    """As it is now."""
    cells: str
    """5 of 35 cells done, 30 blocked."""
    troubles: tuple[str, ...] = ()
    """What failed, and what was not begun because of it: a paragraph for all that failed alike."""


def run_cells(project: Project, options: RunOptions | None = None) -> StudyRun:
    """Runs the cells of a study that are not done.

    Raises StudyError when the study turns out wrong once its models are here, HeldError when another run has it,
    NameTakenError when another file was run under its name; nothing is changed then.
    """
    options = options or RunOptions()
    trackers = makers_of(options.trackers)
    fleet = fleet_of(options.profiles, options.placing)
    if not options.is_take_over:
        project.require_own_name()
    run = _Run(project, options, fleet.slots())
    with contextlib.closing(run.listener()) as view, contextlib.closing(run.tracked(view, trackers)) as listener:
        answers = Options(
            is_keep_going=options.is_keep_going,
            is_fail_fast=options.is_fail_fast,
            is_expendable=EXPENDABLE in os.environ,
        )
        with driving(project.store, project.study.name, fleet, listener, answers, run.label, run.timing) as driver:
            if where := fleet.whereabouts():
                listener.note(f"stages run on {where}")
            summary = run.drive(driver, listener)
    return StudyRun(summary, run.plan, run.cells(), tuple(troubles(run.plan, summary.outcomes)))


def fetch_inputs(project: Project, options: RunOptions) -> Summary:
    """Does what needs the network, here: pins every revision, and fetches. Raises as `run_cells` does.

    What a run by such options would be refused for is so before anything is fetched.
    """
    makers_of(options.trackers)
    fleet_of(options.profiles, options.placing).close()
    here = replace(options, profiles=(HERE,), placing=Placing(uses_fork_server=False))
    fleet = Fleet(fleet_of(here.profiles, here.placing).places, sees_out=False)  # the driver to come goes on with them
    if not here.is_take_over:
        project.require_own_name()
    run = _Run(project, here, fleet.slots())
    with (
        contextlib.closing(run.listener()) as listener,
        driving(project.store, project.study.name, fleet, listener, Options(), run.label, run.timing) as driver,
    ):
        return run.fetch(driver)


def troubles(plan: Plan, outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """-> "failed: a, b, c and 6 more: no such module". What an input that failed blocks goes without saying."""
    for phase in ("failed", "blocked"):
        stages = [stage for stage in plan.stages if stage.key in outcomes and outcomes[stage.key].phase == phase]
        pairs = ((plan.label(stage), outcomes[stage.key].message) for stage in stages)
        for labels, why in grouped_by_text(pairs, likeness=without_particulars):
            if not why.startswith("needs "):
                yield f"{phase}: {labels}: {why}"


class _Run:
    """One run of one study; its plan grows once the rows are known."""

    def __init__(self, project: Project, options: RunOptions, slots: Sequence[Slot]) -> None:
        self._project = project
        self._options = options
        self._slots = slots
        self._pins = project.pins(is_online=True)
        self._make_plan()
        self.timing = self._costs.timing

    def _make_plan(self) -> None:
        self.plan = self._project.plan_with(self._pins)
        self._costs = CostModel(self.plan, device_of(self._slots), devices_of(self._slots))

    def listener(self) -> PlainLog:
        num_slots = sum("heavy" in slot.takes for slot in self._slots)
        return run_listener(lambda stage: self._costs.planned_s(stage), self.label, num_slots, self.timing)

    def tracked(self, view: RunListener, trackers: Mapping[str, MakeTracker]) -> TrackedListener:
        return TrackedListener(view, trackers, self._project.store, self._project.study.name, self.label)

    def label(self, stage: Stage) -> str:
        return self.plan.label(stage)

    def cells(self) -> str:
        """-> 5 of 35 cells done, 30 blocked."""
        state_of = states(self.plan.stages, self.plan.store)
        words = [state_of[cell.evaluate.key].word for cell in self.plan.cells]
        rest = [f"{words.count(word)} {word}" for word in dict.fromkeys(words) if word != "done"]
        return ", ".join([f"{words.count('done')} of {len(words)} cells done", *rest])

    def drive(self, driver: Driver, listener: RunListener) -> Summary:
        """Two rounds: what fetches and tokenises, then everything, now that every key is final."""
        if not self._options.is_take_over:
            self._project.require_own_name()  # another run may have come first
        _note(listener, self._project.changes())
        self._record(is_take_over=self._options.is_take_over)
        notes = (*self._pins.notes, *plan_warnings(self.plan), *self._lock_problems())
        _note(listener, notes)
        require_vllm(self.plan, has_card=any(slot.is_card for slot in self._slots))
        require_quantizer(self.plan)
        light = [stage for stage in self._stages() if KINDS[stage.kind].is_light]
        first = driver.run(light, self._costs.planned_s, is_last=False)
        if first.interrupted:
            return first
        if self.plan.is_provisional or driver.num_started:
            self._make_plan()
            self._record()
        self._weigh_caches()
        _note(listener, (warning for warning in plan_warnings(self.plan) if warning not in notes))
        _note(listener, row_notes(self.plan))
        require_equal_tokenizers(self.plan)
        require_modules(self.plan)
        require_layers(self.plan)
        require_chat_templates(self.plan)
        summary = driver.run(self._stages(), self._costs.planned_s, self._costs.memory)
        if summary.num_started:
            self._make_plan()  # what is done needs no aid any more
        if not self._project.is_recorded:  # its record was removed meanwhile
            self._record()
        return summary

    def _weigh_caches(self) -> None:
        """Once for a study: before its first stage that asks a teacher."""
        pins = with_speeds(self._pins, self.plan, lambda: self._costs.device)
        if pins is not self._pins:
            self._pins = pins
            self._make_plan()
            self._record()

    def fetch(self, driver: Driver) -> Summary:
        self._record(is_take_over=self._options.is_take_over)
        stages = [stage for stage in self._stages() if KINDS[stage.kind].is_online]
        return driver.run(stages, self._costs.planned_s)

    def _record(self, *, is_take_over: bool = False) -> None:
        self._project.record(self._pins, self.plan, is_take_over=is_take_over)

    def _lock_problems(self) -> Sequence[str]:
        """-> what keeps cards of this machine from being shared as an administrator meant it."""
        is_here = any(profile.kind == LOCAL for profile in self._options.profiles) and any(
            slot.gpu for slot in self._slots
        )
        return next(lock_folders.lock_folders()).problems if is_here else ()

    def _stages(self) -> Sequence[Stage]:
        return unique(cell.evaluate for cell in self._wanted())

    def _wanted(self) -> Sequence[Cell]:
        if not self._options.only:
            return self.plan.cells
        wanted = [cell for cell in self.plan.cells if any(_matches(cell, glob) for glob in self._options.only)]
        if not wanted:
            names = "\n".join(f"  {cell.name}" for cell in self.plan.cells)
            raise AblateError(f"--only {' '.join(self._options.only)} names no cell of this study; it has\n{names}")
        return wanted


def _note(listener: RunListener, notes: Iterable[str]) -> None:
    for note in notes:
        listener.note(f"note: {note}")


def _matches(cell: Cell, glob: str) -> bool:
    return fnmatch.fnmatchcase(cell.name, glob) or fnmatch.fnmatchcase(cell.name.rpartition("@")[0], glob)
