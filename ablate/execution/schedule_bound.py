"""What no schedule of stages in slots can beat."""

from collections.abc import Sequence

from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.timing import Timing


def lower_bound_s(tasks: Sequence[Task], slots: Sequence[Slot]) -> float:
    """-> the larger of the longest chain, each stage where it is quickest, and of the work over the places for it."""
    durations = StageDurations(slots, Timing())
    quickest = {task.key: _quickest_s(task, slots, durations) for task in tasks}
    ends: dict[str, float] = {}
    for task in tasks:
        ends[task.key] = quickest[task.key] + max(
            (ends.get(key, 0.0) for key in (*task.needs, *task.aids)), default=0.0
        )
    return max(max(ends.values(), default=0.0), _work_s(tasks, slots, durations))


def _quickest_s(task: Task, slots: Sequence[Slot], durations: StageDurations) -> float:
    return min((durations.seconds(task, slot) for slot in slots if task.work in slot.takes), default=task.cost_s)


def _work_s(tasks: Sequence[Task], slots: Sequence[Slot], durations: StageDurations) -> float:
    """-> what the heavy work takes spread evenly over all that is there, whatever waits for what."""
    heavy = [slot for slot in slots if "heavy" in slot.takes]
    speeds = [durations.speed(slot) for slot in heavy]
    power = sum(speed * slot.num_shares for speed, slot in zip(speeds, heavy, strict=True))
    work_s = 0.0
    for task in tasks:
        if task.work == "heavy":
            least_s = task.cost_s - task.start_s + min(speeds, default=1.0) * task.start_s
            work_s += least_s * _least_shares(task, heavy)
    return work_s / power if power else 0.0


def _least_shares(task: Task, slots: Sequence[Slot]) -> int:
    return min((slot.shares_of(task.memory_bytes) for slot in slots), default=0)
