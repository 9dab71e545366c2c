"""Which stage waits for which, and how long the chain behind each will take; without states or slots."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ablate.machine.slot_allocator import Demand
from ablate.machine.slots import Slot, Spread, Work
from ablate.store.memory import Held

ROUNDING = 1e-9
"""Chains that differ by less are equally long."""


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
    """In the first slot that takes heavy work, where slots differ in speed."""
    aids: tuple[str, ...] = ()
    """Waited for as well, but how they end does not matter."""
    memory_bytes: int | None = None
    """An estimate; None: it takes a card of its own."""
    least_bytes: int = 0
    """It cannot do with less."""
    cards: int = 1
    """So many places of one machine, whole."""
    most_cards: int = 1
    """It may have so many where fewer are too small for it."""
    can_share: int = 1
    """It may have so many where that shortens the study."""
    held: Held | None = None
    """Of a card's memory; None: not known."""
    least_cards: tuple[tuple[int, int], ...] = ()
    """Bytes of a card -> so many of these hold its models: of cards that are too small for it as the study says it."""
    start_s: float = 0.0
    """Of its cost: what no faster card shortens."""
    is_verdict: bool = False
    """Where what it needs diverged, so has it; another kind is blocked by that."""

    @property
    def demand(self) -> Demand:
        return Demand(self.work, self.memory_bytes, self.least_bytes, self.cards, self.least_cards)

    def least_in(self, slot: Slot) -> int:
        """-> how many such slots hold its models."""
        return self.demand.least_in(slot) or 1

    def spread_in(self, slot: Slot) -> Spread | None:
        """-> how its models lie over the cards of a place; None: a copy is on each."""
        if self.held is None or self.least_in(slot) == 1:
            return None
        return "weights" if self.held.is_training else "layers"


class TaskGraph:
    """Tasks, each after its needs and aids. One that is not in it counts as done."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = {task.key: task for task in tasks}
        self._users: dict[str, list[str]] = {key: [] for key in self.tasks}
        self._aided: dict[str, list[str]] = {key: [] for key in self.tasks}
        self._num_awaited: Counter[str] = Counter()
        """Key -> needs that are not done and aids that are not over."""
        for task in tasks:
            self._add(self._users, task.needs, task.key)
            self._add(self._aided, task.aids, task.key)

    def _add(self, waiting: dict[str, list[str]], awaited: Iterable[str], key: str) -> None:
        for other in awaited:
            if other in self.tasks:
                waiting[other].append(key)
                self._num_awaited[key] += 1

    def users(self, key: str) -> Sequence[str]:
        """-> what needs a task."""
        return self._users[key]

    def is_aid(self, key: str) -> bool:
        """Whether something waits for a task and can do without."""
        return bool(self._aided[key])

    def is_free(self, key: str) -> bool:
        """Whether a task waits for nothing any more."""
        return self._num_awaited[key] == 0

    def end(self, key: str, *, is_done: bool) -> list[str]:
        """A task is over, once. -> what has waited for it and now waits for one less."""
        released = [*self._aided[key], *(self._users[key] if is_done else ())]
        for other in released:
            self._num_awaited[other] -= 1
        return released

    def longest_path(self, left_s: Mapping[str, float]) -> tuple[float, list[str]]:
        """-> what the longest chain takes, and the tasks on such chains. `left_s`: of each that is not over."""
        order, before = [key for key in self.tasks if key in left_s], dict.fromkeys(left_s, 0.0)
        behind: dict[str, float] = {}
        for key in reversed(order):
            behind[key] = left_s[key] + max((behind.get(user, 0.0) for user in self._awaiting(key)), default=0.0)
        for key in order:
            for user in self._awaiting(key):
                before[user] = max(before.get(user, 0.0), before[key] + left_s[key])
        length = max(behind.values(), default=0.0)
        return length, [key for key in order if before[key] + behind[key] >= length * (1 - ROUNDING)]

    def _awaiting(self, key: str) -> Iterable[str]:
        return (*self._users[key], *self._aided[key])

    def remaining_s(self, factor_of: Mapping[str, float]) -> dict[str, float]:
        """-> seconds from each task's start to the end of the longest chain that waits for it.

        `factor_of`: what tasks of a kind take, over what was planned.
        """
        remaining: dict[str, float] = {}
        for key, task in reversed(self.tasks.items()):
            behind = max((remaining[user] for user in self._awaiting(key)), default=0.0)
            remaining[key] = task.cost_s * factor_of[task.kind] + behind
        return remaining
