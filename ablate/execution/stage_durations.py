"""How long each stage takes in each slot: planned costs and the speed of cards, corrected by what was measured."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.card_verdicts import numbers_of_cards
from ablate.planning.cost_model import device_in, device_of, on_cards
from ablate.planning.timing import Timing


class StageDurations:
    """Costs are those of the first slot that takes heavy work; in others it goes by the FLOP/s of their cards."""

    def __init__(self, slots: Sequence[Slot], timing: Timing) -> None:
        self._timing = timing
        self._reference = device_of(slots)
        devices = {slot.name: device_in(slot) for slot in slots}
        self._speeds = {name: device.flops_per_s / self._reference.flops_per_s for name, device in devices.items()}
        self._parts_of_jobs: dict[tuple[str, int], Slot] = {}
        """By name of the slot, and by the cards that are used of it."""
        self._sorts = {name: device.sort or "" for name, device in devices.items()}

    def seconds(self, task: Task, slot: Slot) -> float:
        ratio = self._timing.ratio(task.kind, self._sorts[slot.parts[0]], slot.num_places)
        return self._planned_s(task, slot) * ratio

    def quickest(self, task: Task, slot: Slot, least: int, most: int) -> Slot:
        """-> a slot as a stage uses it that has so many cards: of those of its job as many as end it first."""
        if slot.num_gpus == 1:
            return slot
        fewest, most = min(least, slot.num_gpus), min(max(least, most), slot.num_gpus)
        nums = sorted({fewest, most, *(num for num in numbers_of_cards(most) if num > fewest)})
        return min((self._using(slot, num) for num in nums), key=lambda used: self.seconds(task, used))

    def _using(self, slot: Slot, num: int) -> Slot:
        if (slot.name, num) not in self._parts_of_jobs:
            self._parts_of_jobs[slot.name, num] = slot.using(num)
        return self._parts_of_jobs[slot.name, num]

    def learn(self, task: Task, slot: Slot | None, seconds: float) -> None:
        """A stage took so long in a slot; None: in one that is not of this run."""
        if slot is None:
            self._timing.add(task.kind, task.cost_s, seconds)
        else:
            sort, num_cards = self._sorts[slot.parts[0]], slot.num_places
            self._timing.add(task.kind, self._planned_s(task, slot), seconds, sort, num_cards)

    def speed(self, kind: str | None, slot: Slot) -> float:
        """-> over that of the first slot: as is known of a kind, or by the FLOP/s of its card alone."""
        if kind is None:
            return self._speeds[slot.name]
        on_it = self._timing.ratio(kind, self._sorts[slot.name])
        return self._speeds[slot.name] * self._timing.ratio(kind, self._reference.sort or "") / on_it

    def least_work_s(self, task: Task, slowest: float) -> float:
        """-> what a stage takes of a place, at the least, in seconds of the first slot; `slowest`: the least speed."""
        work_s = task.cost_s - task.start_s + min(slowest, 1.0) * task.start_s
        return work_s * self._timing.ratio(task.kind, self._reference.sort or "")

    def pace(self, slot: Slot) -> tuple[float, str]:
        """-> equal for slots in which stages take as long."""
        return self._speeds[slot.name], self._sorts[slot.name]

    def together(self, slots: Iterable[Slot]) -> list[list[Slot]]:
        """-> those of which any may be one place for a stage, and in which it takes as long."""
        alike: defaultdict[tuple[str, tuple[float, str]], list[Slot]] = defaultdict(list)
        for slot in slots:
            if slot.can_join:
                alike[slot.profile, self.pace(slot)].append(slot)
        return list(alike.values())

    def _planned_s(self, task: Task, slot: Slot) -> float:
        if task.work != "heavy":
            return task.cost_s
        seconds = task.start_s + (task.cost_s - task.start_s) / self._speeds[slot.parts[0]]
        num_cards = slot.num_places
        if num_cards == 1 or task.spread_over(task.least_in(slot)) == "layers":  # which are one after the other
            return seconds
        return on_cards(seconds, num_cards, task.start_s)
