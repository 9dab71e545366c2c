"""What no schedule of stages in slots can beat."""

from collections.abc import Iterator, Sequence

from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot, joined
from ablate.planning.timing import Timing


def lower_bound_s(tasks: Sequence[Task], slots: Sequence[Slot], durations: StageDurations | None = None) -> float:
    """-> the larger of the longest chain, each stage where it is quickest, and of the work over the places for it."""
    durations = durations or StageDurations(slots, Timing())
    quickest = {task.key: _quickest_s(task, slots, durations) for task in tasks}
    ends: dict[str, float] = {}
    for task in tasks:
        ends[task.key] = quickest[task.key] + max(
            (ends.get(key, 0.0) for key in (*task.needs, *task.aids)), default=0.0
        )
    return max(max(ends.values(), default=0.0), _work_s(tasks, slots, durations))


def _quickest_s(task: Task, slots: Sequence[Slot], durations: StageDurations) -> float:
    places = _places([slot for slot in slots if task.work in slot.takes], task, durations)
    return min((durations.seconds(task, slot) for slot in places), default=task.cost_s)


def _places(slots: Sequence[Slot], task: Task, durations: StageDurations) -> Iterator[Slot]:
    """-> every slot as the task uses it best, and of those that can be one for it a place of each size."""
    yield from (durations.quickest(task, slot, 1, max(task.cards, task.can_share)) for slot in slots)
    for group in durations.together(slots):
        most = max(task.cards, *((task.can_share, task.least_in(group[0])) if group[0].is_card else (1,)))
        yield from (joined(group[:num]) for num in range(2, min(most, len(group)) + 1))


def _work_s(tasks: Sequence[Task], slots: Sequence[Slot], durations: StageDurations) -> float:
    """-> what the heavy work takes spread evenly over all that is there, whatever waits for what.

    Counted in seconds of the first slot for it: a faster one does more of them in a second.
    """
    heavy = [slot for slot in slots if "heavy" in slot.takes]
    work = [task for task in tasks if task.work == "heavy"]
    if not heavy or not work:
        return 0.0
    kinds = {task.kind for task in work}
    power = sum(slot.num_shares * slot.num_gpus * max(durations.speed(kind, slot) for kind in kinds) for slot in heavy)
    slowest = min(durations.speed(None, slot) for slot in heavy)
    return sum(durations.least_work_s(task, slowest) * _least_shares(task, heavy) for task in work) / power


def _least_shares(task: Task, slots: Sequence[Slot]) -> int:
    return min((slot.shares_of(task.memory_bytes) for slot in slots), default=0)
