"""What runs next: the state of every stage of a run, as a machine without clock, files or processes of its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from ablate.core.failures import NUM_ALIKE, Ending
from ablate.execution.priority_queues import PriorityQueues
from ablate.execution.retry_policy import CircuitBreaker, RetryPolicy
from ablate.execution.task_graph import Task, TaskGraph
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot
from ablate.planning.timing import Timing

Phase: TypeAlias = Literal["waiting", "running", "done", "diverged", "failed", "blocked", "stopped"]


class Outcome(NamedTuple):
    """Where a stage stands."""

    phase: Phase
    failure: str = "ok"
    """Class of the last failure; see `ablate.core.failures`."""
    message: str = ""


class Start(NamedTuple):
    """A stage whose turn it is, and where."""

    key: str
    slot: Slot
    shares: int


class Scheduler:
    """Says what to start, and is handed what came of it. A stage that is not in it counts as done."""

    def __init__(
        self, tasks: Sequence[Task], slots: Sequence[Slot], *, is_keep_going: bool = False, timing: Timing | None = None
    ) -> None:
        self.outcomes = {task.key: Outcome("waiting") for task in tasks}
        self.is_halted = False
        self.allocator = SlotAllocator(slots)
        self._timing = timing or Timing()
        self._graph = TaskGraph(tasks)
        self._retries = RetryPolicy()
        self._breaker = None if is_keep_going else CircuitBreaker()
        self._numbers = {task.key: number for number, task in enumerate(tasks)}
        self._running: dict[str, None] = {}
        self._num_waiting = len(tasks)
        self._demands = {task.key: Demand(task.work, task.memory_bytes, task.least_bytes) for task in tasks}
        self._faulted: dict[str, Slot] = {}
        """Key of a stage -> the card that it saw fail."""
        self._rank()

    @property
    def tasks(self) -> Mapping[str, Task]:
        return self._graph.tasks

    def _rank(self) -> None:
        """The longest remaining path first."""
        self._ranked_at = {kind: self._timing.of(kind) for kind in {task.kind for task in self.tasks.values()}}
        self._remaining_s = self._graph.remaining_s(self._ranked_at)
        self._turns = PriorityQueues()
        for key in self.tasks:
            self._queue(key)

    # what to do

    def next_start(self, now: float) -> Start | None:
        """The stage to start now; it must then be told to `run` or `finish`.

        A slot that could hold a stage which waits for room is kept from those behind it, so that small stages never
        keep a large one from its card.
        """
        if self.is_halted:
            return None
        for key in self._retries.take_due(now):
            self._queue(key)
        barred: set[str] = set()
        for key in self._turns.firsts(lambda key, demand: self._is_ready(key) and self._demands[key] == demand):
            place = self.allocator.find(self._demands[key], barred)
            if place:
                return Start(key, *place)
            barred |= self.allocator.awaited(self._demands[key])
        return None

    def _queue(self, key: str) -> None:
        if self._is_ready(key):
            self._turns.add(self._demands[key], self._remaining_s[key], self._numbers[key], key)

    def _is_ready(self, key: str) -> bool:
        return self._phase(key) == "waiting" and self._graph.is_free(key) and not self._retries.is_postponed(key)

    def _phase(self, key: str) -> Phase:
        return self.outcomes[key].phase

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return not self.allocator.fitting(self._demands[key])

    def due_at(self) -> float | None:
        """-> when the next retry is due."""
        return self._retries.next_due_at

    @property
    def running(self) -> list[str]:
        return list(self._running)

    @property
    def is_over(self) -> bool:
        return not self._running and (self.is_halted or self._num_waiting == 0)

    # what happened

    def run(self, key: str, slot: str | None, shares: int | None = None) -> None:
        """A stage has begun, or was found running; it holds the slot unless others do."""
        self.allocator.hold(key, slot, shares)
        self._put(key, self.outcomes[key]._replace(phase="running"))

    def finish(
        self, key: str, ending: Ending, now: float, *, is_further: bool = False, seconds: float | None = None
    ) -> None:
        """An attempt has ended. `is_further`: it got further than the one before; `seconds`: what a whole one took."""
        slot = self.allocator.release(key)
        self._learn(key, seconds)
        if ending.failure == "ok":
            self._put(key, Outcome("done"))
        elif ending.failure == "diverged":
            self.close(key, "diverged", ending)
        elif ending.failure == "gpu_fault" and slot and slot.gpu and not self.is_halted:
            self._leave(key, slot, ending)
        elif self._may_retry(key, ending, is_further):
            self._make_room(key, ending, slot)
            self._retries.postpone(key, ending, now)
            self._put(key, Outcome("waiting", *ending))
        elif ending.table.is_fault:
            self._fail(key, ending)
        else:
            self.close(key, "stopped", ending)
            if not self._graph.is_aid(key):  # a large cache may find no room where all the rest does
                self._end_all("stopped", key, ending)

    def close(self, key: str, phase: Phase, ending: Ending) -> None:
        """A stage comes to no result in this run, nor does what depends on it."""
        self._put(key, Outcome(phase, *ending))
        reached = [(key, user) for user in reversed(self._graph.users(key))]
        while reached:  # each with all behind it before the next: a block is told before a divergence
            above, user = reached.pop()
            if self._phase(user) == "waiting":
                self._put(user, self._after(above, user))
                reached += ((user, further) for further in reversed(self._graph.users(user)))

    def again(self, key: str) -> None:
        """An attempt that was not this run's to count has ended."""
        self.allocator.release(key)
        self._put(key, Outcome("waiting"))

    def halt(self) -> None:
        """Nothing more is started."""
        self.is_halted = True

    def _put(self, key: str, outcome: Outcome) -> None:
        before, self.outcomes[key] = self._phase(key), outcome
        self._num_waiting += (outcome.phase == "waiting") - (before == "waiting")
        if outcome.phase == "running":
            self._running[key] = None
        else:
            self._running.pop(key, None)
        self._queue(key)
        if outcome.phase not in ("waiting", "running") and before in ("waiting", "running"):
            for released in self._graph.end(key, is_done=outcome.phase == "done"):
                self._queue(released)

    def _learn(self, key: str, seconds: float | None) -> None:
        if seconds is not None:
            self._timing.add(self.tasks[key].kind, self.tasks[key].cost_s, seconds)
            if self._timing.has_moved(self._ranked_at):
                self._rank()

    def _may_retry(self, key: str, ending: Ending, is_further: bool) -> bool:
        if ending.failure == "nospace" and self._graph.is_aid(key):
            return False  # a large cache may find no room where all the rest does
        return self._retries.may_retry(key, ending, is_further=is_further) and not self.is_halted

    def _make_room(self, key: str, ending: Ending, slot: Slot | None) -> None:
        """Out of a card's memory: alone on it next. Out of the machine's: fewer stages at once from now on."""
        if ending.failure == "oom" and slot and slot.gpu:
            self._demands[key] = self._demands[key]._replace(memory_bytes=None)
        elif ending.failure in ("oom", "memory"):
            self.allocator.most_heavy = max(1, self.allocator.num_heavy)

    def _leave(self, key: str, slot: Slot, ending: Ending) -> None:
        """A card on which a stage faults is avoided; where a second card faults too, it is the stage."""
        first = self._faulted.setdefault(key, slot)
        if first.name != slot.name:
            self.allocator.forgive(first)
            return self._fail(key, ending)
        self.allocator.avoid(slot)
        self._put(key, Outcome("waiting", ending.failure, f"{ending.message}; {slot.name} is avoided in this run"))
        left = Ending(ending.failure, f"no card is left for it: {slot.name} is avoided ({ending.message})")
        for other in self.tasks:
            if self._phase(other) == "waiting" and self.is_misfit(other):
                self.close(other, "stopped", left)
        return None

    def _fail(self, key: str, ending: Ending) -> None:
        self.close(key, "failed", ending)
        kind = self.tasks[key].kind
        if self._breaker and self._breaker.trips(kind, ending):
            self._give_up(kind, ending)
        self._end_all("blocked", key, ending)

    def _after(self, key: str, user: str) -> Outcome:
        phase, failure, message = outcome = self.outcomes[key]
        if phase == "failed":
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which failed: {message}")
        if phase == "diverged" and not self.tasks[user].is_verdict:
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which {message}")
        return outcome

    def _end_all(self, phase: Phase, key: str, ending: Ending) -> None:
        if not ending.table.is_of_all:
            return
        stopped = Ending(ending.failure, f"{self.tasks[key].name} stopped the study: {ending.message}")
        for other in self.tasks:
            if self._phase(other) == "waiting":
                self.close(other, phase, stopped)

    def _give_up(self, kind: str, ending: Ending) -> None:
        message = f"{NUM_ALIKE} {kind} stages failed alike ({ending.message}); --keep-going goes on all the same"
        for other, task in self.tasks.items():
            if task.kind == kind and self.outcomes[other].phase == "waiting":
                self.close(other, "blocked", Ending(ending.failure, message))


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 all done or diverged, 1 something failed, 75 something was stopped and goes on with the same command."""
    phases = {outcome.phase for outcome in outcomes}
    if phases & {"failed", "blocked"}:
        return 1
    return 75 if phases & {"stopped", "waiting", "running"} else 0
