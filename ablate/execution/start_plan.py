"""Which ready stages start now, and where: each in its turn goes where it is expected to end first.

List scheduling by the longest remaining path (Graham 1969), each stage in the place of its earliest finish time (HEFT:
Topcuoglu, Hariri, Wu 2002). That may be a place which is busy still: then the stage waits for it, and those behind it
find it booked.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from ablate.execution.booked_slots import BookedSlot, PlaceGroup, Standing, booked_slots
from ablate.execution.expected_ends import ExpectedEnds
from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot

RECHECK = 0.1
"""Of what a stage waits by choice: so often it is looked at anew."""
RECHECK_S = 1.0
"""And never more often."""


class Start(NamedTuple):
    """A stage whose turn it is, and where."""

    key: str
    slot: Slot
    shares: int


class Choice(NamedTuple):
    """The place in which a stage is expected to end first."""

    end_s: float
    standing: Standing
    booked: BookedSlot
    shares: int


class StartPlan:
    """Of one moment: made anew whenever anything has changed."""

    def __init__(
        self,
        allocator: SlotAllocator,
        durations: StageDurations,
        ends: ExpectedEnds,
        waits_s: Mapping[str, float],
        now: float,
    ) -> None:
        self._allocator, self._durations, self._now = allocator, durations, now
        self._slots = booked_slots(allocator, ends, waits_s, now)
        self._groups: dict[Demand, list[tuple[Slot, PlaceGroup]]] = {}
        self._open: dict[Demand, list[tuple[BookedSlot, int]]] = {}
        """Places that may have room, the last of them most likely."""
        self._num_begun: Counter[str] = Counter()
        """By profile, in this plan."""
        self.closed: set[Demand] = set()
        """There is no room anywhere."""
        self.recheck_at: float | None = None
        """A stage waits by choice: when to think again, should nothing happen before."""

    def turn(self, task: Task, demand: Demand) -> Start | None:
        """-> where a stage starts now, after all that have had their turn before.

        A slot that could hold a stage which waits for room is kept from those behind it, so that small stages never
        keep a large one from its card.
        """
        best = self._best(task, demand)
        if not self._has_room(demand):
            self._close(demand, best)
            return None
        if best is None or best.standing.is_busy:
            self._wait(best)
            return None
        self._num_begun[best.booked.slot.profile] += "heavy" in best.booked.slot.takes
        best.booked.book(best.shares, best.end_s)
        return Start(task.key, best.booked.slot, best.shares)

    def _best(self, task: Task, demand: Demand) -> Choice | None:
        least: tuple[float, bool, int, int] | None = None
        best = None
        for slot, group in self._groups_of(demand):
            if self._is_full(slot):
                continue
            standing, booked = group.best()
            end_s = standing.start_s + self._durations.seconds(task, slot)
            if least is None or (end_s, *standing[1:]) < least:
                least, best = (end_s, *standing[1:]), Choice(end_s, standing, booked, group.shares)
        return best

    def _groups_of(self, demand: Demand) -> list[tuple[Slot, PlaceGroup]]:
        """-> one slot of each group, and the group."""
        if demand not in self._groups:
            places: defaultdict[tuple[str, tuple[float, str], int], list[BookedSlot]] = defaultdict(list)
            for slot, shares in self._allocator.fitting(demand):
                if self._slots[slot.name].can_hold(shares):
                    places[slot.profile, self._durations.pace(slot), shares].append(self._slots[slot.name])
            groups = ((booked[0].slot, booked, key[-1]) for key, booked in places.items())
            self._groups[demand] = [(slot, PlaceGroup(booked, shares)) for slot, booked, shares in groups]
        return self._groups[demand]

    def _has_room(self, demand: Demand) -> bool:
        """Anywhere, now: what has none gets none in this plan."""
        if demand not in self._open:
            fitting = self._allocator.fitting(demand)
            self._open[demand] = [(self._slots[slot.name], shares) for slot, shares in fitting]
        places = self._open[demand]
        while places and (not places[-1][0].is_open(places[-1][1]) or self._is_full(places[-1][0].slot)):
            places.pop()
        return bool(places)

    def _is_full(self, slot: Slot) -> bool:
        is_heavy = "heavy" in slot.takes
        return is_heavy and self._allocator.is_full_of_heavy(slot.profile, self._num_begun[slot.profile])

    def _close(self, demand: Demand, best: Choice | None) -> None:
        """The first that finds no room books the place it waits for; all that could hold it are kept for it."""
        self.closed.add(demand)
        if best:
            best.booked.book(best.shares, best.end_s)
        for slot, shares in self._allocator.fitting(demand):
            if self._slots[slot.name].can_hold(shares):
                self._slots[slot.name].keep(best.end_s if best else self._now + RECHECK_S)

    def _wait(self, best: Choice | None) -> None:
        """By choice: a better place than those with room will be free."""
        if best:
            best.booked.book(best.shares, best.end_s)
        start_s = best.standing.start_s if best else self._now
        recheck_at = self._now + max(RECHECK_S, RECHECK * (start_s - self._now))
        self.recheck_at = min(recheck_at, self.recheck_at or recheck_at)
