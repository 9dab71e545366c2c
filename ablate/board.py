"""What runs next: the state of every stage of a run, as a machine without clock, files or processes of its own."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ablate.executors.base import Slot, Work
from ablate.failures import NUM_ALIKE, Ending

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
    is_verdict: bool = False
    """Where what it needs diverged, so has it; another kind is blocked by that."""


class Outcome(NamedTuple):
    """Where a stage stands."""

    phase: Phase
    failure: str = "ok"
    """Class of the last failure; see `ablate.failures`."""
    message: str = ""


class Start(NamedTuple):
    """A stage whose turn it is, and where."""

    key: str
    slot: Slot


class Board:
    """Says what to start; is told what came of them. A stage that is not on it counts as done."""

    def __init__(self, tasks: Sequence[Task], slots: Sequence[Slot], *, is_keep_going: bool = False) -> None:
        self.tasks = {task.key: task for task in tasks}
        self.outcomes = {task.key: Outcome("waiting") for task in tasks}
        self.is_halted = False
        self._slots = {slot.name: slot for slot in slots}
        self._held: dict[str, str] = {}
        """Key -> name of the slot that it runs in."""
        self._is_keep_going = is_keep_going
        self._retries: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._alike: Counter[tuple[str, tuple[str, str]]] = Counter()
        self._users: dict[str, list[str]] = {key: [] for key in self.tasks}
        self._aided: dict[str, list[str]] = {key: [] for key in self.tasks}
        for task in tasks:
            for key in task.needs:
                self._users.get(key, []).append(task.key)
            for key in task.aids:
                self._aided.get(key, []).append(task.key)
        self._remaining = self._longest_paths()

    def _longest_paths(self) -> dict[str, float]:
        """Key -> seconds from its start to the end of the longest chain that waits for it."""
        remaining: dict[str, float] = {}
        for key in reversed(self.tasks):
            after = max((remaining[user] for user in (*self._users[key], *self._aided[key])), default=0.0)
            remaining[key] = self.tasks[key].cost_s + after
        return remaining

    # what to do

    def next_start(self, now: float) -> Start | None:
        """The stage to start now, the longest remaining path first; it must then be told to `run` or `finish`."""
        if self.is_halted:
            return None
        free = [slot for slot in self._slots.values() if slot.name not in self._held.values()]
        for key in sorted(self._ready(now), key=lambda key: -self._remaining[key]):
            slot = next((slot for slot in free if self.tasks[key].work in slot.takes), None)
            if slot:
                return Start(key, slot)
        return None

    def _ready(self, now: float) -> Iterator[str]:
        for key, task in self.tasks.items():
            is_due = self.outcomes[key].phase == "waiting" and now >= self._not_before.get(key, 0.0)
            is_free = all(self._phase(need) == "done" for need in task.needs)
            if is_due and is_free and not any(self._phase(aid) in ("waiting", "running") for aid in task.aids):
                yield key

    def _phase(self, key: str) -> Phase:
        return self.outcomes[key].phase if key in self.outcomes else "done"

    @property
    def running(self) -> list[str]:
        return [key for key, outcome in self.outcomes.items() if outcome.phase == "running"]

    @property
    def is_over(self) -> bool:
        phases = {outcome.phase for outcome in self.outcomes.values()}
        return "running" not in phases and (self.is_halted or "waiting" not in phases)

    # what happened

    def run(self, key: str, slot: str | None) -> None:
        """A stage has begun, or was found running; `slot` is held unless another stage holds it."""
        if slot in self._slots and slot not in self._held.values():
            self._held[key] = str(slot)
        self.outcomes[key] = self.outcomes[key]._replace(phase="running")

    def finish(self, key: str, ending: Ending, now: float, *, is_further: bool = False) -> None:
        """An attempt has ended; `is_further`: it got further than the one before."""
        self._held.pop(key, None)
        if ending.failure == "ok":
            self.outcomes[key] = Outcome("done")
        elif ending.failure == "diverged":
            self.close(key, "diverged", ending)
        elif self._may_retry(key, ending, is_further):
            self._retry(key, ending, now)
        elif ending.table.is_fault:
            self.close(key, "failed", ending)
            self._count(key, ending)
            if ending.table.is_of_all:
                self._block_all(Ending(ending.failure, f"{self.tasks[key].name} stopped the study: {ending.message}"))
        else:
            self.close(key, "stopped", ending)

    def close(self, key: str, phase: Phase, ending: Ending) -> None:
        """A stage comes to no result in this run, nor does what depends on it."""
        self.outcomes[key] = Outcome(phase, *ending)
        self._spread(key)

    def again(self, key: str) -> None:
        """An attempt that was not this run's to count has ended."""
        self._held.pop(key, None)
        self.outcomes[key] = Outcome("waiting")

    def halt(self) -> None:
        """Nothing more is started."""
        self.is_halted = True

    def _may_retry(self, key: str, ending: Ending, is_further: bool) -> bool:
        if ending.failure == "nospace" and self._aided[key]:
            return False  # a large cache may find no room where all the rest does
        if is_further:
            self._retries[key] = 0
        return not self.is_halted and self._retries[key] < ending.table.num_retries

    def _retry(self, key: str, ending: Ending, now: float) -> None:
        self._not_before[key] = now + ending.table.back_off_s * 2 ** self._retries[key]
        self._retries[key] += 1
        self.outcomes[key] = Outcome("waiting", *ending)

    def _spread(self, key: str) -> None:
        for user in self._users[key]:
            if self.outcomes[user].phase == "waiting":
                self.outcomes[user] = self._after(key, user)
                self._spread(user)

    def _after(self, key: str, user: str) -> Outcome:
        phase, failure, message = outcome = self.outcomes[key]
        if phase == "failed":
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which failed: {message}")
        if phase == "diverged" and not self.tasks[user].is_verdict:
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which {message}")
        return outcome

    def _block_all(self, ending: Ending) -> None:
        for key in self.tasks:
            if self._phase(key) == "waiting":
                self.close(key, "blocked", ending)

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
