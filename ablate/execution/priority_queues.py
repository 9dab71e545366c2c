"""Whose turn it is: the ready stages, the longest remaining path first, apart for each thing that is asked for."""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TypeAlias

from ablate.machine.slot_allocator import Demand

Entry: TypeAlias = tuple[float, int, str]
"""Remaining seconds, negative; number; key."""


class PriorityQueues:
    """Where there is no room for the first of those that ask for the same, there is none for the others."""

    def __init__(self) -> None:
        self._queues: dict[Demand, list[Entry]] = {}

    def add(self, demand: Demand, remaining_s: float, number: int, key: str) -> None:
        """Of equal paths the lower number goes first."""
        queue, entry = self._queues.setdefault(demand, []), (-remaining_s, number, key)
        place = bisect_left(queue, entry)
        if queue[place : place + 1] != [entry]:
            queue.insert(place, entry)

    def in_order(self, is_meant: Callable[[str, Demand], bool], closed: set[Demand]) -> Iterator[str]:
        """-> keys in order, but for demands that are closed meanwhile; what is no longer meant is dropped."""
        heads = [(self._next(demand, 0, is_meant), 0, demand) for demand in self._queues]
        heap = [(head, number, place, demand) for number, (head, place, demand) in enumerate(heads) if head]
        heapq.heapify(heap)
        while heap:
            (_, _, key), number, place, demand = heap[0]
            yield key
            after = None if demand in closed else self._next(demand, place + 1, is_meant)
            if after:
                heapq.heapreplace(heap, (after, number, place + 1, demand))
            else:
                heapq.heappop(heap)

    def all_of(self, demand: Demand) -> list[str]:
        """-> what waits there, perhaps with some that is no longer meant."""
        return [key for _, _, key in self._queues.get(demand, ())]

    def _next(self, demand: Demand, place: int, is_meant: Callable[[str, Demand], bool]) -> Entry | None:
        queue = self._queues[demand]
        while place < len(queue) and not is_meant(queue[place][2], demand):
            del queue[place]
        return queue[place] if place < len(queue) else None
