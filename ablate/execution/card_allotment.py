"""How many cards each stage should have at most: more for the chain that all waits for, one for each of a crowd.

Critical path and area (CPA: Radulescu, van Gemund 2001): while the longest path takes longer than all the work spread
evenly over the cards, one stage on it gets one card more, that which gains most by it.
"""

from collections.abc import Mapping, Sequence

from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task, TaskGraph
from ablate.machine.slots import Slot, joined


class CardAllotment:
    """Of one moment."""

    def __init__(self, graph: TaskGraph, durations: StageDurations, num_cards: int, together: Sequence[Slot]) -> None:
        """`num_cards`: that may have a stage; `together`: the most of them, alike, that may be one place."""
        self._graph, self._durations, self._num_cards = graph, durations, num_cards
        self._places = [joined(together[:num]) for num in range(1, len(together) + 1)]
        self._known_s: dict[tuple[str, int], float] = {}

    def most(self, waiting: Sequence[str], running: Mapping[str, tuple[float, float]]) -> Mapping[str, int]:
        """-> key of a stage that waits -> how many cards it is to have at most; without those that have one.

        `running`: seconds that a stage at work will take still, and how many cards it has.
        """
        tasks = [self._graph.tasks[key] for key in waiting]
        nums = {task.key: self._least(task) for task in tasks}
        left_s = {task.key: self._seconds(task, nums[task.key]) for task in tasks}
        area = sum(left_s[task.key] * self._share(task, nums[task.key]) for task in tasks)
        area += sum(seconds * num for seconds, num in running.values())
        left_s |= {key: seconds for key, (seconds, _) in running.items()}
        while best := self._to_have_more(nums, left_s, area):
            area -= left_s[best.key] * self._share(best, nums[best.key])
            nums[best.key] += 1
            left_s[best.key] = self._seconds(best, nums[best.key])
            area += left_s[best.key] * nums[best.key]
        return {task.key: nums[task.key] for task in tasks if nums[task.key] > self._least(task)}

    def _to_have_more(self, nums: Mapping[str, int], left_s: Mapping[str, float], area: float) -> Task | None:
        """-> of the longest path, unless all cards are busy for as long in any case."""
        path_s, on_path = self._graph.longest_path(left_s)
        if path_s <= area / self._num_cards:
            return None
        gains = {key: self._gain(self._graph.tasks[key], nums[key]) for key in on_path if key in nums}
        best = max(gains, key=lambda key: gains[key], default=None)
        return self._graph.tasks[best] if best is not None and gains[best] > 0 else None

    def _gain(self, task: Task, num: int) -> float:
        """-> of one card more, as CPA weighs it; 0 where there is none, or it makes the stage no quicker."""
        if num >= min(task.can_share, len(self._places)):
            return 0.0
        now_s, then_s = self._seconds(task, num), self._seconds(task, num + 1)
        return now_s / num - then_s / (num + 1) if then_s < now_s else 0.0

    def _least(self, task: Task) -> int:
        return min(max(task.cards, task.least_in(self._places[0])), len(self._places))

    def _seconds(self, task: Task, num: int) -> float:
        if (task.key, num) not in self._known_s:
            self._known_s[task.key, num] = self._durations.seconds(task, self._places[num - 1])
        return self._known_s[task.key, num]

    def _share(self, task: Task, num: int) -> float:
        """-> cards, or a part of one."""
        if task.work != "heavy":
            return 0.0
        slot = self._places[0]
        return num if num > 1 else slot.shares_of(task.memory_bytes) / slot.num_shares
