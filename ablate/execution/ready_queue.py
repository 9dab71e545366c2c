"""The stages whose turn it may be, the longest remaining path first, by costs that what was measured corrects."""

from collections.abc import Callable, Iterator

from ablate.execution.priority_queues import PriorityQueues
from ablate.execution.task_graph import Task, TaskGraph
from ablate.machine.slot_allocator import Demand
from ablate.planning.timing import Timing


class ReadyQueue:
    """Holds what is ready; what is not so any more is dropped when its turn comes."""

    def __init__(
        self, graph: TaskGraph, timing: Timing, demand: Callable[[str], Demand], is_ready: Callable[[str], bool]
    ) -> None:
        self._graph, self._timing, self._demand, self._is_ready = graph, timing, demand, is_ready
        self._numbers = {key: number for number, key in enumerate(graph.tasks)}
        """Of equal paths the first goes first."""
        self._rank()

    def add(self, key: str) -> None:
        """A stage that may be ready by now."""
        if self._is_ready(key):
            self._queues.add(self._demand(key), self._remaining_s[key], self._numbers[key], key)

    def in_order(self, closed: set[Demand]) -> Iterator[str]:
        """-> what is ready, but for what asks for the same as one before it that has found no room: `closed`."""
        return self._queues.in_order(lambda key, demand: self._is_ready(key) and self._demand(key) == demand, closed)

    def all_of(self, demand: Demand) -> list[Task]:
        """-> all that may be ready and asks for the same."""
        return [self._graph.tasks[key] for key in self._queues.all_of(demand)]

    def rank_anew(self) -> None:
        """A stage was measured: where that changes what its kind takes, all are ranked anew."""
        if self._timing.has_moved(self._ranked_at):
            self._rank()

    def _rank(self) -> None:
        tasks = self._graph.tasks
        self._ranked_at = {kind: self._timing.ratio(kind) for kind in {task.kind for task in tasks.values()}}
        self._remaining_s = self._graph.remaining_s(self._ranked_at)
        self._queues = PriorityQueues()
        for key in tasks:
            self.add(key)
