"""Where each stage of a run may go: what it asks for, and what its failures say of it and of the slots."""

from collections.abc import Callable, Mapping, Sequence

from ablate.core.failures import Ending
from ablate.execution.card_allotment import CardAllotment
from ablate.execution.expected_ends import ExpectedEnds
from ablate.execution.stage_durations import StageDurations
from ablate.execution.start_plan import StartPlan
from ablate.execution.task_graph import Task, TaskGraph
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot, Taken

ON_FEWER = frozenset({"error", "oom", "memory", "gpu_fault", "stalled", "killed"})
"""Failures that may come of several cards or their processes."""


class StagePlacement:
    """The slots as the stages of a run see them."""

    def __init__(self, tasks: Sequence[Task], slots: Sequence[Slot], durations: StageDurations) -> None:
        self.allocator = SlotAllocator(slots)
        self._durations = durations
        self._tasks = {task.key: task for task in tasks}
        self._ends = ExpectedEnds(self._tasks, durations)
        self._demands = {task.key: task.demand for task in tasks}
        self._can_share = any(task.can_share > 1 for task in tasks)
        self._waits_s: Mapping[str, float] = {}
        """Name of a slot whose job has to queue first -> for how long."""
        self._on_fewest: set[str] = set()
        """Keys of stages that failed on more cards than they need."""
        self._faulted: dict[str, Slot] = {}
        """Key of a stage -> the card that it saw fail."""

    def demand(self, key: str) -> Demand:
        return self._demands[key]

    def plan(self, ready: Callable[[Demand], Sequence[Task]], most_cards: Mapping[str, int], now: float) -> StartPlan:
        """-> for the stages that are `ready` to have their turns in; `most_cards`: see `most_cards`."""
        return StartPlan(
            self.allocator, self._durations, self._ends, self._waits_s, ready, most_cards, self._on_fewest, now
        )

    def most_cards(self, graph: TaskGraph, is_waiting: Callable[[str], bool], now: float) -> Mapping[str, int]:
        """-> key of a stage -> how many cards it is to have at most, where that may be more than it needs."""
        cards = self._free_of_others() if self._can_share else []
        together = max(self._durations.together(cards), key=len, default=[])
        if len(together) < 2:
            return {}
        held = self.allocator.held.items()
        running = {
            key: (self._ends.end_s(key, slot, now) - now, slot.num_places * shares / slot.num_shares)
            for key, (slot, shares) in held
            if slot.is_card
        }
        allotment = CardAllotment(graph, self._durations, sum(slot.num_gpus for slot in cards), together)
        most = allotment.most([key for key in graph.tasks if is_waiting(key)], running)
        return {key: num for key, num in most.items() if key not in self._on_fewest}

    def _free_of_others(self) -> list[Slot]:
        """-> cards that are all ours to give."""
        slots = [slot for slot, _ in self.allocator.fitting(Demand("heavy")) if slot.is_card]
        return [slot for slot in slots if self.allocator.ours(slot) == slot.num_shares]

    def queued(self, now: float) -> dict[str, float]:
        """-> key of each stage whose job still queues, and when it is expected to end."""
        held = self.allocator.held.items()
        return {key: self._ends.end_s(key, slot, now) for key, (slot, _) in held if slot.name in self._waits_s}

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return not self.allocator.fitting(self._demands[key])

    def hold(self, key: str, slot: str | None, shares: int | None, num_cards: int | None, now: float) -> None:
        """See `SlotAllocator.hold`."""
        if self.allocator.hold(key, slot, shares, num_cards):
            self._ends.begin(key, now, self._waits_s.get(slot or "", 0.0))

    def take(self, taken: Mapping[str, Taken], now: float) -> None:
        """What stands between slots and their next stages, from now on."""
        self.allocator.take({name: others.shares for name, others in taken.items()})
        self._waits_s = {name: others.wait_s for name, others in taken.items() if others.wait_s > 0}
        for key, place in self.allocator.held.items():
            self._ends.postpone(key, now, self._waits_s.get(place.slot.name, 0.0))

    def make_room(self, key: str, ending: Ending, slot: Slot | None) -> None:
        """Out of a card's memory: alone on it next. Out of the machine's: fewer stages at once from now on."""
        if ending.failure == "oom" and slot and slot.is_card:
            self._demands[key] = self._demands[key]._replace(memory_bytes=None)
        elif ending.failure in ("oom", "memory") and slot:
            self.allocator.limit_heavy(slot.profile)

    def other_number(self, key: str, ending: Ending, slot: Slot) -> str | None:
        """-> on how many cards a stage that failed is to be tried instead, in words; None: on as many."""
        if self._is_for_fewer(key, ending, slot):
            return f"it had {slot.num_places} cards, and is tried on fewer"
        return "it is tried on more cards, which share its models" if self._is_for_more(key, ending, slot) else None

    def _is_for_fewer(self, key: str, ending: Ending, slot: Slot) -> bool:
        """Whether it had more than it needs: then on as few as it needs, once in this run."""
        demand = self._demands[key]
        if slot.num_places <= max(demand.cards, demand.least_in(slot) or 1) or ending.failure not in ON_FEWER:
            return False
        self._on_fewest.add(key)
        return True

    def _is_for_more(self, key: str, ending: Ending, slot: Slot) -> bool:
        """Whether whole cards were too small, whatever gave way: then on twice as many for one copy of its models."""
        task, demand = self._tasks[key], self._demands[key]
        is_full = slot.is_card and demand.shares_in(slot) == slot.num_shares
        if ending.failure != "oom" or not is_full or not (task.held and task.held.ways) or not slot.memory_bytes:
            return False
        num = 2 * (demand.least_in(slot) or 1)
        alike = [card for card in self._free_of_others() if card.memory_bytes == slot.memory_bytes]
        together = map(len, self._durations.together(alike))
        there = max([*together, *(card.num_gpus for card in alike)], default=0)
        if num > min(there, task.most_cards):
            return False
        least_cards = dict(demand.least_cards) | {slot.memory_bytes: num}
        self._demands[key] = demand._replace(least_cards=tuple(sorted(least_cards.items())))
        return True

    def is_at_fault(self, key: str, slot: Slot) -> bool:
        """A stage has seen a card fail. -> whether it is the stage: a second card failed it too.

        Otherwise the card is avoided in this run; of several all, but only where the stage can go on with others.
        """
        first = self._faulted.setdefault(key, slot)
        if first.name == slot.name:
            self.allocator.avoid(slot)
            if len(slot.parts) == 1 or not self.is_misfit(key):
                return False
        self.allocator.forgive(first)
        return True
