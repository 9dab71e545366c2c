"""Where each stage of a run may go: what it asks for, and what its failures say of it and of the slots."""

from collections.abc import Callable, Mapping, Sequence

from ablate.core.failures import Ending
from ablate.execution.expected_ends import ExpectedEnds
from ablate.execution.stage_durations import StageDurations
from ablate.execution.start_plan import StartPlan
from ablate.execution.task_graph import Task
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot, Taken


class StagePlacement:
    """The slots as the stages of a run see them."""

    def __init__(self, tasks: Sequence[Task], slots: Sequence[Slot], durations: StageDurations) -> None:
        self.allocator = SlotAllocator(slots)
        self._durations = durations
        self._ends = ExpectedEnds({task.key: task for task in tasks}, durations)
        self._demands = {task.key: task.demand for task in tasks}
        self._waits_s: Mapping[str, float] = {}
        """Name of a slot whose job has to queue first -> for how long."""
        self._faulted: dict[str, Slot] = {}
        """Key of a stage -> the card that it saw fail."""

    def demand(self, key: str) -> Demand:
        return self._demands[key]

    def plan(self, ready: Callable[[Demand], Sequence[Task]], now: float) -> StartPlan:
        """-> for the stages that are `ready` to have their turns in."""
        return StartPlan(self.allocator, self._durations, self._ends, self._waits_s, ready, now)

    def queued(self, now: float) -> dict[str, float]:
        """-> key of each stage whose job still queues, and when it is expected to end."""
        held = self.allocator.held.items()
        return {key: self._ends.end_s(key, slot, now) for key, (slot, _) in held if slot.name in self._waits_s}

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return not self.allocator.fitting(self._demands[key])

    def hold(self, key: str, slot: str | None, shares: int | None, now: float) -> None:
        """See `SlotAllocator.hold`."""
        if self.allocator.hold(key, slot, shares):
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

    def is_at_fault(self, key: str, slot: Slot) -> bool:
        """A stage has seen a card fail. -> whether it is the stage: a second card failed it too.

        Otherwise the card is avoided in this run.
        """
        first = self._faulted.setdefault(key, slot)
        if first.name == slot.name:
            self.allocator.avoid(slot)
            return False
        self.allocator.forgive(first)
        return True
