"""When the stages at work are expected to end: later and later for one that takes longer than was thought."""

from collections.abc import Mapping

from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot

LEAST_S = 1e-6
"""A stage at work has not ended yet."""


class ExpectedEnds:
    """By key of the stage."""

    def __init__(self, tasks: Mapping[str, Task], durations: StageDurations) -> None:
        self._tasks, self._durations = tasks, durations
        self._began_at: dict[str, float] = {}
        """For one whose job has not started yet: when that is expected."""

    def begin(self, key: str, now: float, wait_s: float) -> None:
        """A stage was handed to its slot; whoever works there is expected in so many seconds."""
        self._began_at[key] = now + wait_s

    def postpone(self, key: str, now: float, wait_s: float) -> None:
        """A stage's job still queues."""
        if wait_s > 0:
            self._began_at[key] = now + wait_s

    def end_s(self, key: str, slot: Slot, now: float) -> float:
        """-> when a stage's place is free; never now.

        One that is late by a minute is expected to be late by another (Lindy's law), so that nothing waits for ever
        for a place that does not become free.
        """
        at = self._began_at[key] + self._durations.seconds(self._tasks[key], slot)
        return max(at, now + max(now - at, LEAST_S))
