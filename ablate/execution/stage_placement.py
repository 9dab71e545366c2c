"""Where each stage of a run may go: what it asks for, and what its failures say of it and of the slots."""

from collections.abc import Collection, Sequence

from ablate.core.failures import Ending
from ablate.execution.task_graph import Task
from ablate.machine.slot_allocator import Demand, Placement, SlotAllocator
from ablate.machine.slots import Slot


class StagePlacement:
    """The slots as the stages of a run see them."""

    def __init__(self, tasks: Sequence[Task], slots: Sequence[Slot]) -> None:
        self.allocator = SlotAllocator(slots)
        self._demands = {task.key: Demand(task.work, task.memory_bytes, task.least_bytes) for task in tasks}
        self._faulted: dict[str, Slot] = {}
        """Key of a stage -> the card that it saw fail."""

    def demand(self, key: str) -> Demand:
        return self._demands[key]

    def find(self, key: str, barred: Collection[str]) -> Placement | None:
        """-> room for a stage; `barred`: slots that are kept from it."""
        return self.allocator.find(self._demands[key], barred)

    def awaited(self, key: str) -> set[str]:
        """-> the slots that will have room for a stage once others of this run have ended."""
        return self.allocator.awaited(self._demands[key])

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return not self.allocator.fitting(self._demands[key])

    def make_room(self, key: str, ending: Ending, slot: Slot | None) -> None:
        """Out of a card's memory: alone on it next. Out of the machine's: fewer stages at once from now on."""
        if ending.failure == "oom" and slot and slot.is_card:
            self._demands[key] = self._demands[key]._replace(memory_bytes=None)
        elif ending.failure in ("oom", "memory"):
            self.allocator.most_heavy = max(1, self.allocator.num_heavy)

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
