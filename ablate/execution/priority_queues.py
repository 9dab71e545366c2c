"""Whose turn it is: the ready stages, the longest remaining path first, apart for each thing that is asked for."""

import heapq
from collections.abc import Callable

from ablate.machine.slot_allocator import Demand


class PriorityQueues:
    """Where there is no room for the first of those that ask for the same, there is none for the others."""

    def __init__(self) -> None:
        self._queues: dict[Demand, list[tuple[float, int, str]]] = {}

    def add(self, demand: Demand, remaining_s: float, number: int, key: str) -> None:
        """Of equal paths the lower number goes first."""
        heapq.heappush(self._queues.setdefault(demand, []), (-remaining_s, number, key))

    def firsts(self, is_meant: Callable[[str, Demand], bool]) -> list[str]:
        """-> the first of each demand, in order; what was added and is no longer meant is dropped."""
        for demand, queue in self._queues.items():
            while queue and not is_meant(queue[0][2], demand):
                heapq.heappop(queue)
        return [key for _, _, key in sorted(queue[0] for queue in self._queues.values() if queue)]
