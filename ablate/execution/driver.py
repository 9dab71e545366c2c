"""The driver of a run: starts what the scheduler says, watches attempts by their folders, and leaves nothing behind."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ablate.core import disk
from ablate.core.failures import Ending, ending_of, is_of_disk
from ablate.core.processes import Identity
from ablate.execution import attempts, study_lock
from ablate.execution.attempts import Watched
from ablate.execution.executors.base import Executor, supervisor_of
from ablate.execution.scheduler import Outcome, Scheduler, Start, exit_code
from ablate.execution.scheduler_tasks import Cost, Memory, misfit, task_of
from ablate.machine.slots import Taken
from ablate.planning.timing import Timing, measured_s
from ablate.store.attempt import Attempt
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store

BEAT_S = 1.0
TAKEN_S = 5.0
"""Between two looks at who else is on the cards."""
LEAVE_S = 5.0
"""For workers that have had their last word to be gone."""


@dataclass(frozen=True)
class Options:
    """How a run answers failures, and its patience."""

    is_keep_going: bool = False
    """However often the same failure comes."""
    is_fail_fast: bool = False
    """The first failure stops the rest."""
    stall_s: float = 1800.0
    """A stage that shows no step and prints no line for so long is killed and tried again."""
    grace_s: float = 30.0
    """For a stage to save a checkpoint once it is asked to stop."""
    poll_s: float = 0.02
    """Between two looks at what runs: a slot is idle for half of it after each stage."""


class RunListener(Protocol):
    """Who is told how the run goes; see `ablate.execution.live_view`."""

    def begin(self, stages: Sequence[Stage], num_done: int) -> None:
        """So many of the stages are there already."""

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        """An attempt has begun, or one of another driver was found at work."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """An attempt is over; a stage that waits again will be tried again."""

    def tick(self, running: Mapping[str, Attempt]) -> None:
        """Some time has passed."""

    def note(self, text: str) -> None:
        """Something else a reader should know."""


@dataclass(frozen=True)
class Summary:
    """What came of a run, by stage key."""

    outcomes: Mapping[str, Outcome]
    interrupted: int | None = None
    """130 after Ctrl-C, 75 after another request to stop."""
    num_started: int = 0

    @property
    def exit_code(self) -> int:
        return self.interrupted or exit_code(self.outcomes.values())


Label: TypeAlias = Callable[[Stage], str]


@dataclass
class Driver:
    """Runs stages for one study. Made by `driving`; `run` may be called again as the plan grows."""

    store: Store
    study: str
    executor: Executor
    listener: RunListener
    options: Options
    me: Identity
    label: Label
    timing: Timing = field(default_factory=Timing)
    signals: list[int] = field(default_factory=list)
    """Caught so far: the first asks for an orderly end, the second for a quick one."""
    num_started: int = 0
    _started: list[Attempt] = field(default_factory=list)
    _failed: dict[str, Ending] = field(default_factory=dict)
    """What failed in an earlier call of `run`: the next command tries it again, not this one."""
    _watched: dict[str, Watched] = field(default_factory=dict)
    _lost: set[Path] = field(default_factory=set)
    """Attempts that are not waited for any more: should they come to an end all the same, the first result counts."""
    _num_heeded: int = 0
    _beats: int = 0
    _taken: Mapping[str, Taken] = field(default_factory=dict)
    _taken_at: float = -TAKEN_S

    def run(self, stages: Sequence[Stage], cost_s: Cost, memory: Memory = lambda _: (None, 0)) -> Summary:
        """Brings the stages (each after its inputs) to their ends. Returns early, in order, when asked to stop.

        `cost_s` is as planned: `timing` corrects it by what was measured.
        """
        self._stages = {stage.key: stage for stage in stages}
        tasks = [task_of(stage, cost_s, memory) for stage in stages]
        keep_going = self.options.is_keep_going
        self._scheduler = Scheduler(tasks, self.executor.slots(), is_keep_going=keep_going, timing=self.timing)
        for stage in stages:
            self._look_back(stage)
        self.listener.begin(stages, sum(of.phase in ("done", "diverged") for of in self._scheduler.outcomes.values()))
        for stage in stages:
            self._look_around(stage)
        self._num_heeded, self._taken_at = 0, -TAKEN_S
        try:
            while not self._scheduler.is_over:
                self._turn()
                time.sleep(self.options.poll_s)
        finally:
            self._leave_nothing()
        return Summary(self._scheduler.outcomes, self._interrupted(), self.num_started)

    def _turn(self) -> None:
        self._mind_requests()
        for key in self._scheduler.running:
            self._look(self._stages[key])
        self._mind_others()
        while start := self._scheduler.next_start(time.monotonic()):
            self._try_to_start(self._stages[start.key], start)
        self.listener.tick({key: watched.attempt for key, watched in self._watched.items()})
        beats = int(time.monotonic() / BEAT_S)
        if beats != self._beats:
            self._beats = beats
            with contextlib.suppress(OSError):  # a full disk must not end a run
                study_lock.beat(self.store, self.study, beats)

    def _mind_others(self) -> None:
        """What others hold of the cards is not ours to give; who comes and goes is told."""
        if time.monotonic() - self._taken_at < TAKEN_S:
            return
        self._taken_at = time.monotonic()
        taken = self.executor.taken([watched.attempt for watched in self._watched.values()])
        self._scheduler.allocator.take({name: others.shares for name, others in taken.items()})
        for name in taken.keys() - self._taken.keys():
            self.listener.note(f"{taken[name].why}: what does not fit beside goes elsewhere or waits")
        for name in self._taken.keys() - taken.keys():
            self.listener.note(f"{name} is free again")
        self._taken = taken

    # starting

    def _try_to_start(self, stage: Stage, start: Start) -> None:
        try:
            self._start(stage, start)
        except OSError as error:
            if not is_of_disk(error):
                raise
            self._scheduler.finish(stage.key, ending_of(error), time.monotonic())
            self.listener.ended(stage, self._scheduler.outcomes[stage.key])

    def _start(self, stage: Stage, start: Start) -> None:
        if self._is_done(stage):  # by another run, meanwhile
            self._settle(stage)
            return self.listener.ended(stage, self._scheduler.outcomes[stage.key])
        found = attempts.live(self.store, self.executor, stage, self._lost)
        if found:
            return self._watch(stage, found, is_ours=False)
        attempt = self.store.claim(stage.key12)
        first = attempts.unended(self.store, stage, self._lost)[0]
        if first != attempt:
            attempts.withdraw(attempt, Ending("cancelled", "another run claimed it in the same instant"))
            return self._watch(stage, first, is_ours=False)
        if self._is_done(stage):  # by another run, between the first look and the claim
            attempts.withdraw(attempt, Ending("cancelled", "another run committed it in the same instant"))
            self._settle(stage)
            return self.listener.ended(stage, self._scheduler.outcomes[stage.key])
        if self.store.folder(stage).exists():
            self.store.set_aside(stage)
        self._hand_out(attempt, self._request(stage, start))
        self.num_started += 1
        self._started.append(attempt)
        return self._watch(stage, attempt, is_ours=True)

    def _hand_out(self, attempt: Attempt, request: dict[str, Any]) -> None:
        try:
            attempt.write_request(request)
            self.executor.submit(attempt)
        except OSError as error:
            with contextlib.suppress(OSError):  # or it is waited for until it is clear that nobody works on it
                attempts.withdraw(attempt, ending_of(error))
            raise

    def _request(self, stage: Stage, start: Start) -> dict[str, Any]:
        of = {"label": self.label(stage), "study": self.study, "driver": self.me.model_dump()}
        stall_s, grace_s = self.options.stall_s, self.options.grace_s
        return attempts.request(self.store, stage, start.slot, stall_s, grace_s, start.shares) | of

    def _is_done(self, stage: Stage) -> bool:
        return self.store.done(stage) is not None and KINDS[stage.kind].is_present(self.store.folder(stage))

    def _look_back(self, stage: Stage) -> None:
        """What was made before, and what cannot be made in this run."""
        if stage.is_provisional:
            ending = Ending("missing_input", "its rows are not made, so it has no final key")
            self._scheduler.close(stage.key, "blocked", ending)
        elif self._is_done(stage):
            self._settle(stage)
        elif stage.key in self._failed:
            self._scheduler.close(stage.key, "failed", self._failed[stage.key])

    def _look_around(self, stage: Stage) -> None:
        """What is at work already, so that nothing is put in its place; and what no place here can hold."""
        if self._scheduler.outcomes[stage.key].phase != "waiting":
            return
        found = attempts.live(self.store, self.executor, stage)
        if found:
            self._watch(stage, found, is_ours=False)
        elif self._scheduler.is_misfit(stage.key):
            self._scheduler.close(stage.key, "failed", Ending("unfit", misfit(self._scheduler.tasks[stage.key])))
            self.listener.ended(stage, self._scheduler.outcomes[stage.key])

    def _settle(self, stage: Stage) -> None:
        diverged = self.store.diverged(stage)
        self._scheduler.finish(
            stage.key, Ending("diverged", diverged) if diverged else Ending("ok", ""), time.monotonic()
        )

    def _watch(self, stage: Stage, attempt: Attempt, *, is_ours: bool) -> None:
        slot = (attempt.request or {}).get("slot", {})
        self._watched[stage.key] = Watched(attempt, is_ours, ("", time.monotonic()))
        self._scheduler.run(stage.key, slot.get("name"), slot.get("shares"))
        self.listener.started(stage, attempt, is_found=not is_ours)

    # watching

    def _look(self, stage: Stage) -> None:
        watched = self._watched[stage.key]
        ending = attempts.ending_of(watched, self.executor)
        if ending is None:
            return
        del self._watched[stage.key]
        if ending.failure == "lost":
            self._lost.add(watched.attempt.path)
            self.listener.note(f"{watched.attempt.path}: {ending.message}")
        if ending.failure == "ok" and not self._is_done(stage):
            ending = Ending("error", "it ended well, but its result is not there")
        if watched.is_ours or ending.failure in ("ok", "diverged"):
            is_further = ending.failure != "ok" and attempts.is_further(self.store, watched.attempt)
            seconds = measured_s(self.store, stage) if ending.failure == "ok" else None
            self._scheduler.finish(stage.key, ending, time.monotonic(), is_further=is_further, seconds=seconds)
        else:
            self._scheduler.again(stage.key)  # tried under another driver's eyes: our own tries are yet to come
        outcome = self._scheduler.outcomes[stage.key]
        self.listener.ended(stage, outcome)
        if outcome.phase == "failed":
            self._failed[stage.key] = ending
        if outcome.phase == "failed" and self.options.is_fail_fast and not self._scheduler.is_halted:
            self.listener.note("--fail-fast: the rest stops and goes on with the same command")
            self._stop_all(is_now=False)

    # stopping

    def _mind_requests(self) -> None:
        request = study_lock.stop_request(self.store, self.study)
        if request.exists():
            num_meant = 2 if request.read_text().strip() == "now" else 1
            self.signals += [signal.SIGTERM] * (num_meant - len(self.signals))
        if len(self.signals) == self._num_heeded:
            return
        self._num_heeded = len(self.signals)
        is_now = self._num_heeded > 1
        self.listener.note(
            "killing what runs" if is_now else "stopping: what runs saves a checkpoint (once more kills it)"
        )
        self._stop_all(is_now=is_now)

    def _stop_all(self, *, is_now: bool) -> None:
        self._scheduler.halt()
        for key, watched in list(self._watched.items()):
            if (watched.attempt.request or {}).get("study") != self.study:
                del self._watched[key]  # another study's driver looks after it
                self._scheduler.again(key)
                continue
            is_told = _is_told(watched.attempt, is_now=is_now)
            if supervisor_of(watched.attempt) is None:  # one that comes all the same finds that it is over
                attempts.withdraw(watched.attempt, Ending("cancelled", "stopped before it had begun"))
            elif is_now or not is_told:
                self.executor.end(watched.attempt)

    def _interrupted(self) -> int | None:
        if not self.signals:
            return None
        return 130 if self.signals[0] == signal.SIGINT else 75

    def _leave_nothing(self) -> None:
        """Ends what is left after an error of our own, and sees the last workers out."""
        for watched in self._watched.values():
            if watched.is_ours:
                _is_told(watched.attempt, is_now=True)
                self.executor.end(watched.attempt)
        self._watched.clear()
        until = time.monotonic() + LEAVE_S
        while any(self.executor.poll(attempt) == "alive" for attempt in self._started) and time.monotonic() < until:
            time.sleep(self.options.poll_s)
        for attempt in self._started:
            if self.executor.poll(attempt) == "alive":
                self.listener.note(
                    f"{supervisor_of(attempt)} ({attempt.key12}) has not ended yet, though it was told to"
                )
        self._started.clear()


def _is_told(attempt: Attempt, *, is_now: bool) -> bool:
    """Asks a worker to stop, where the disk lets us."""
    try:
        disk.write_volatile(attempt.stop_request, "now" if is_now else "")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def driving(
    store: Store,
    study: str,
    executor: Executor,
    listener: RunListener,
    options: Options | None = None,
    label: Label = lambda stage: stage.folder,
    timing: Timing | None = None,
) -> Iterator[Driver]:
    """Holds the study, and the signals of the process, while stages run. Raises HeldError when another run has it."""
    with study_lock.held(store, study) as me, contextlib.closing(executor):
        driver = Driver(store, study, executor, listener, options or Options(), me, label, timing or Timing())
        with _caught(driver.signals):
            yield driver


@contextlib.contextmanager
def _caught(signals: list[int]) -> Iterator[None]:
    """Puts SIGINT, SIGTERM, SIGUSR2 and SIGHUP into a list, where the main thread runs (elsewhere Python cannot)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    before = {number: signal.signal(number, lambda caught, _: signals.append(caught)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
