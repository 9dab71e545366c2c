"""What slots have to give, now and later, as far as they are booked."""

import heapq
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ablate.execution.expected_ends import ExpectedEnds
from ablate.machine.slot_allocator import SlotAllocator
from ablate.machine.slots import Slot

Standing: TypeAlias = tuple[float, bool, int, int]
"""From when a place has room for a stage; whether that is later than now; of places alike the emptiest, then the first
go first. The least is the best."""


class BookedSlot:
    """One slot. Booking only makes it worse."""

    def __init__(self, number: int, slot: Slot, num_free: int, free_at: list[float], now: float, wait_s: float) -> None:
        self.slot = slot
        self.num_bookings = 0
        self._number, self._num_free, self._now, self._wait_s = number, num_free, now, wait_s
        self._free_at = free_at
        """When each of its shares is free, in order; without those that others hold."""
        self._kept_until = 0.0
        """For a larger stage that has waited longer."""

    def is_open(self, shares: int) -> bool:
        """Whether there is room now."""
        return self._num_free >= shares and not self._kept_until

    def can_hold(self, shares: int) -> bool:
        """Whether there will be room once our own stages there have ended, whatever others hold."""
        return shares <= len(self._free_at)

    def standing(self, shares: int) -> Standing:
        is_open = self.is_open(shares)
        start_s = self._now + self._wait_s if is_open else max(self._free_at[shares - 1], self._kept_until)
        return start_s, not is_open, -self._num_free, self._number

    def book(self, shares: int, until_s: float) -> None:
        """From as soon as there is room."""
        self.num_bookings += 1
        self._num_free -= shares if self.is_open(shares) else 0
        del self._free_at[:shares]
        for _ in range(shares):
            insort(self._free_at, until_s)

    def keep(self, until_s: float) -> None:
        """From those behind a stage that has no room anywhere."""
        self.num_bookings += 1
        self._kept_until = max(self._kept_until, until_s)


class PlaceGroup:
    """Places in which a stage takes as long, and the best of them."""

    def __init__(self, slots: Iterable[BookedSlot], shares: int) -> None:
        self.shares = shares
        self._heap = [(booked.standing(shares), booked.num_bookings, booked) for booked in slots]
        heapq.heapify(self._heap)

    @property
    def slot(self) -> Slot:
        """Any of them."""
        return self._heap[0][-1].slot

    @property
    def is_open(self) -> bool:
        """Whether any of them has room now."""
        return any(booked.is_open(self.shares) for _, _, booked in self._heap)

    def latest_start_s(self, seconds: float) -> float:
        """-> the latest start of a stage that comes after others of so many seconds in all, each put where it is first.

        As Graham (1969) bounds list scheduling.
        """
        starts_s = [booked.standing(self.shares)[0] for _, _, booked in self._heap]
        return max(starts_s) + seconds / len(starts_s)

    def best(self) -> tuple[Standing, BookedSlot]:
        while True:
            standing, num_bookings, booked = self._heap[0]
            if num_bookings == booked.num_bookings:
                return standing, booked
            heapq.heapreplace(self._heap, (booked.standing(self.shares), booked.num_bookings, booked))


def booked_slots(
    allocator: SlotAllocator, ends: ExpectedEnds, waits_s: Mapping[str, float], now: float
) -> dict[str, BookedSlot]:
    """-> by name: every slot, booked by the stages at work there.

    `waits_s`: name of a slot whose job has to queue first -> for how long, as is thought.
    """
    ends_s: defaultdict[str, list[float]] = defaultdict(list)
    for key, (slot, shares) in allocator.held.items():
        for name in slot.parts:
            ends_s[name] += [ends.end_s(key, slot, now)] * shares
    booked = {}
    for number, slot in enumerate(allocator.slots):
        ours, free = allocator.ours(slot), allocator.free(slot)
        free_at = [now] * free + sorted(ends_s[slot.name])[max(0, -free) :]
        booked[slot.name] = BookedSlot(number, slot, free, free_at[:ours], now, waits_s.get(slot.name, 0.0))
    return booked
