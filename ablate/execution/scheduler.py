"""What runs next: the state of every stage of a run, as a machine without clock, files or processes of its own."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ablate.core.failures import NUM_ALIKE, Ending
from ablate.execution.priority_queues import PriorityQueues
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot, Work
from ablate.planning.timing import Timing

Phase: TypeAlias = Literal["waiting", "running", "done", "diverged", "failed", "blocked", "stopped"]


@dataclass(frozen=True)
class Task:
    """A stage, as far as its turn is concerned."""

    key: str
    kind: str
    name: str
    """As a message about it says: distill-0123456789ab."""
    work: Work
    needs: tuple[str, ...]
    cost_s: float
    aids: tuple[str, ...] = ()
    """Waited for as well, but how they end does not matter."""
    memory_bytes: int | None = None
    """An estimate; None: it takes a card of its own."""
    least_bytes: int = 0
    """It cannot do with less."""
    is_verdict: bool = False
    """Where what it needs diverged, so has it; another kind is blocked by that."""


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
    """Says what to start; is told what came of them. A stage that is not in it counts as done."""

    def __init__(
        self, tasks: Sequence[Task], slots: Sequence[Slot], *, is_keep_going: bool = False, timing: Timing | None = None
    ) -> None:
        self.tasks = {task.key: task for task in tasks}
        self.outcomes = {task.key: Outcome("waiting") for task in tasks}
        self.is_halted = False
        self.allocator = SlotAllocator(slots)
        self.timing = timing or Timing()
        self._is_keep_going = is_keep_going
        self._numbers = {task.key: number for number, task in enumerate(tasks)}
        self._running: dict[str, None] = {}
        self._num_waiting = len(tasks)
        self._demands = {task.key: Demand(task.work, task.memory_bytes, task.least_bytes) for task in tasks}
        self._retries: dict[str, Counter[str]] = defaultdict(Counter)
        """Key -> how often it was tried again after each sort of failure, since it last got further."""
        self._not_before: dict[str, float] = {}
        self._alike: Counter[tuple[str, tuple[str, str]]] = Counter()
        self._faulted: dict[str, Slot] = {}
        """Key of a stage -> the card that it saw fail."""
        self._users: dict[str, list[str]] = {key: [] for key in self.tasks}
        self._aided: dict[str, list[str]] = {key: [] for key in self.tasks}
        self._num_before: Counter[str] = Counter()
        """Of a stage: needs that are not done and aids that are not over."""
        for task in tasks:
            for users, keys in ((self._users, task.needs), (self._aided, task.aids)):
                for key in (key for key in keys if key in self.tasks):
                    users[key].append(task.key)
                    self._num_before[task.key] += 1
        self._rank()

    def _rank(self) -> None:
        """The longest remaining path first: seconds from a stage's start to the end of the chain that waits for it."""
        self._remaining: dict[str, float] = {}
        self._ranked_at = {kind: self.timing.ratio(kind) for kind in {task.kind for task in self.tasks.values()}}
        for key, task in reversed(self.tasks.items()):
            after = max((self._remaining[user] for user in (*self._users[key], *self._aided[key])), default=0.0)
            self._remaining[key] = task.cost_s * self._ranked_at[task.kind] + after
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
        for key in [key for key, due in self._not_before.items() if due <= now]:
            del self._not_before[key]
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
            self._turns.add(self._demands[key], self._remaining[key], self._numbers[key], key)

    def _is_ready(self, key: str) -> bool:
        return self._phase(key) == "waiting" and self._num_before[key] == 0 and key not in self._not_before

    def _phase(self, key: str) -> Phase:
        return self.outcomes[key].phase

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return not self.allocator.fitting(self._demands[key])

    def due_at(self) -> float | None:
        """-> when the next retry is due."""
        return min(self._not_before.values(), default=None)

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
            self._retry(key, ending, now)
        elif ending.table.is_fault:
            self._fail(key, ending)
        else:
            self.close(key, "stopped", ending)
            if not self._aided[key]:  # a large cache may find no room where all the rest does
                self._end_all("stopped", key, ending)

    def close(self, key: str, phase: Phase, ending: Ending) -> None:
        """A stage comes to no result in this run, nor does what depends on it."""
        self._put(key, Outcome(phase, *ending))
        reached = [(key, user) for user in reversed(self._users[key])]
        while reached:  # each with all behind it before the next: a block is told before a divergence
            above, user = reached.pop()
            if self._phase(user) == "waiting":
                self._put(user, self._after(above, user))
                reached += ((user, further) for further in reversed(self._users[user]))

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
            for user in (*self._aided[key], *(self._users[key] if outcome.phase == "done" else ())):
                self._num_before[user] -= 1
                self._queue(user)

    def _learn(self, key: str, seconds: float | None) -> None:
        if seconds is not None:
            self.timing.add(self.tasks[key].kind, self.tasks[key].cost_s, seconds)
            if self.timing.has_moved(self._ranked_at):
                self._rank()

    def _may_retry(self, key: str, ending: Ending, is_further: bool) -> bool:
        if ending.failure == "nospace" and self._aided[key]:
            return False  # a large cache may find no room where all the rest does
        if is_further:
            self._retries[key].clear()
        return not self.is_halted and self._retries[key][ending.failure] < ending.table.num_retries

    def _retry(self, key: str, ending: Ending, now: float) -> None:
        self._not_before[key] = now + ending.table.back_off_s * 2 ** self._retries[key][ending.failure]
        self._retries[key][ending.failure] += 1
        self._put(key, Outcome("waiting", *ending))

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
        self._count(key, ending)
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
        told = Ending(ending.failure, f"{self.tasks[key].name} stopped the study: {ending.message}")
        for other in self.tasks:
            if self._phase(other) == "waiting":
                self.close(other, phase, told)

    def _count(self, key: str, ending: Ending) -> None:
        """The breaker: what fails alike three times in one kind will fail in the rest of it too."""
        if not ending.table.is_counted or self._is_keep_going:
            return
        kind = self.tasks[key].kind
        self._alike[kind, ending.likeness] += 1
        if self._alike[kind, ending.likeness] < NUM_ALIKE:
            return
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
