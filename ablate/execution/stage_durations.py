"""How long each stage takes in each slot: planned costs and the speed of cards, corrected by what was measured."""

from collections.abc import Sequence

from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.cost_model import device_in, device_of
from ablate.planning.timing import Timing


class StageDurations:
    """Costs are those of the first slot that takes heavy work; in others it goes by the FLOP/s of their cards."""

    def __init__(self, slots: Sequence[Slot], timing: Timing) -> None:
        self._timing = timing
        reference = device_of(slots).flops_per_s
        devices = {slot.name: device_in(slot) for slot in slots}
        self._speeds = {name: device.flops_per_s / reference for name, device in devices.items()}
        self._sorts = {name: device.sort or "" for name, device in devices.items()}

    def seconds(self, task: Task, slot: Slot) -> float:
        return self._planned_s(task, slot) * self._timing.ratio(task.kind, self._sorts[slot.name])

    def learn(self, task: Task, slot: Slot | None, seconds: float) -> None:
        """A stage took so long in a slot; None: in one that is not of this run."""
        if slot is None:
            self._timing.add(task.kind, task.cost_s, seconds)
        else:
            self._timing.add(task.kind, self._planned_s(task, slot), seconds, self._sorts[slot.name])

    def speed(self, slot: Slot) -> float:
        """-> of heavy work, over that of the slot whose costs the stages' are."""
        return self._speeds[slot.name]

    def pace(self, slot: Slot) -> tuple[float, str]:
        """-> equal for slots in which stages take as long."""
        return self._speeds[slot.name], self._sorts[slot.name]

    def _planned_s(self, task: Task, slot: Slot) -> float:
        if task.work != "heavy":
            return task.cost_s
        return task.start_s + (task.cost_s - task.start_s) / self._speeds[slot.name]
