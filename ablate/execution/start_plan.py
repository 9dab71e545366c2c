"""Which ready stages start now, and where: each in its turn goes where it is expected to end first.

List scheduling by the longest remaining path (Graham 1969), each stage in the place of its earliest finish time (HEFT:
Topcuoglu, Hariri, Wu 2002). That may be a place which is busy still: then the stage waits for it, and those behind it
find it booked.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from ablate.execution.booked_slots import BookedSlot, PlaceGroup, Standing, booked_slots
from ablate.execution.expected_ends import ExpectedEnds
from ablate.execution.joint_places import JointGroup, JointPlace
from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slot_allocator import Demand, SlotAllocator
from ablate.machine.slots import Slot, Spread

RECHECK_S = 1.0
"""At least, until what waits by choice is looked at anew: its place should be free by then."""


LEAST_GAIN, LEAST_GAIN_S = 0.25, 60.0
"""Of the time to its end, for a stage to be taken back from a job that still queues."""

PATIENCE = 2.0
"""For a stage to wait for more cards than it needs, over what it gains by that: the shortest studies in simulations."""


class Start(NamedTuple):
    """A stage whose turn it is, and where."""

    key: str
    slot: Slot
    shares: int
    spread: Spread | None = None
    """How its models lie over the cards of the slot; None: a copy is on each."""


class Choice(NamedTuple):
    """The place in which a stage is expected to end first."""

    start_s: float
    is_busy: bool
    """There is no room now."""
    end_s: float
    booked: BookedSlot | JointPlace
    group: PlaceGroup | JointGroup


class StartPlan:
    """Of one moment: made anew whenever anything has changed."""

    def __init__(
        self,
        allocator: SlotAllocator,
        durations: StageDurations,
        ends: ExpectedEnds,
        waits_s: Mapping[str, float],
        ready: Callable[[Demand], Sequence[Task]],
        most_cards: Mapping[str, int],
        on_fewest: Container[str],
        now: float,
    ) -> None:
        """`ready`: all whose turn may come. `most_cards`: of a stage that may have more than it needs.

        `on_fewest`: keys of those that are not to have more than they need, though a job holds more.
        """
        self._allocator, self._durations, self._now = allocator, durations, now
        self._slots = booked_slots(allocator, ends, waits_s, now)
        self._ready, self._most_cards, self._on_fewest = ready, most_cards, on_fewest
        self._larger: dict[tuple[Demand, int], list[JointGroup]] = {}
        self._nums_used: dict[tuple[str, str, str | None, int], int] = {}
        """Of the cards of a job: by key of the stage, and by what tells sorts of jobs apart."""
        self._walked: set[Demand] = set()
        self._groups: dict[Demand, list[PlaceGroup | JointGroup]] = {}
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
        if best is None or best.is_busy:
            self._wait(demand, best)
            return None
        self._num_begun[best.booked.slot.profile] += "heavy" in best.booked.slot.takes
        best.booked.book(best.group.shares, best.end_s)
        slot = self._used(task, demand, best.booked.slot)
        return Start(task.key, slot, best.group.shares, task.spread_over(demand.least_in(slot) or 1))

    def is_better_now(self, task: Task, demand: Demand, end_s: float) -> bool:
        """Whether a stage would end well before a time in a place with room: then it is booked."""
        best = self._best(task, demand)
        if best is None or best.is_busy or end_s - best.end_s < max(LEAST_GAIN_S, LEAST_GAIN * (end_s - self._now)):
            return False
        best.booked.book(best.group.shares, best.end_s)
        return True

    def _best(self, task: Task, demand: Demand) -> Choice | None:
        least: Standing | None = None
        for group in self._groups_of(demand):
            standing, booked = group.best()
            if not self._is_full(booked.slot):
                end_s = standing[0] + self._seconds(task, demand, booked.slot)
                if least is None or (end_s, *standing[1:]) < least:
                    least, best = (end_s, *standing[1:]), (standing[0], standing[1], end_s, booked, group)
        return self._on_more_cards(task, demand, Choice(*best)) if least else None

    def _seconds(self, task: Task, demand: Demand, slot: Slot) -> float:
        return self._durations.seconds(task, self._used(task, demand, slot))

    def _used(self, task: Task, demand: Demand, slot: Slot) -> Slot:
        """-> a slot with as many of the cards of its job as a stage uses."""
        if slot.num_gpus == 1:
            return slot
        sort = task.key, slot.profile, slot.model, slot.num_gpus
        if sort not in self._nums_used:
            least = max(demand.cards, demand.least_in(slot) or 1)
            most = 1 if task.key in self._on_fewest else task.can_share
            self._nums_used[sort] = self._durations.quickest(task, slot, least, most).num_gpus
        return slot.using(self._nums_used[sort])

    def _on_more_cards(self, task: Task, demand: Demand, best: Choice) -> Choice:
        """-> a place of more cards than a stage needs, where that ends it sooner and the wait for it is worth it."""
        for num in range(2, self._most_cards.get(task.key, 1) + 1):
            for group in self._larger_groups(demand, num):
                (start_s, is_busy, *_), place = group.best()
                end_s = start_s + self._durations.seconds(task, place.slot)
                if end_s < best.end_s and start_s - best.start_s <= PATIENCE * (best.end_s - end_s):
                    best = Choice(start_s, is_busy, end_s, place, group)
        return best

    def _larger_groups(self, demand: Demand, num: int) -> list[JointGroup]:
        """-> of cards that are alike and on one machine, where there are so many."""
        if (demand, num) not in self._larger:
            fitting = [slot for slot, _ in self._allocator.fitting(demand) if slot.is_card]
            there = [slot for slot in fitting if self._slots[slot.name].can_hold(slot.num_shares)]
            wide = [slots for slots in self._durations.together(there) if len(slots) >= num]
            wide = [slots for slots in wide if num > (demand.least_in(slots[0]) or 1)]
            self._larger[demand, num] = [JointGroup([self._slots[slot.name] for slot in slots], num) for slots in wide]
        return self._larger[demand, num]

    def _groups_of(self, demand: Demand) -> list[PlaceGroup | JointGroup]:
        if demand not in self._groups:
            places: defaultdict[tuple[str, tuple[float, str], int], list[BookedSlot]] = defaultdict(list)
            for slot, shares in self._allocator.fitting(demand):
                if self._slots[slot.name].can_hold(shares):
                    places[slot.profile, self._durations.pace(slot), shares].append(self._slots[slot.name])
            groups = (_group(booked, shares, demand) for (_, _, shares), booked in places.items())
            self._groups[demand] = [group for group in groups if group]
        return self._groups[demand]

    def _has_room(self, demand: Demand) -> bool:
        """Anywhere, now: what has none gets none in this plan."""
        if demand.is_joint:
            return any(group.is_open and not self._is_full(group.slot) for group in self._groups_of(demand))
        if demand not in self._open:
            fitting = self._allocator.fitting(demand)
            self._open[demand] = [(self._slots[slot.name], shares) for slot, shares in fitting]
        places = self._open[demand]
        while places and (not places[-1][0].is_open(places[-1][1]) or self._is_full(places[-1][0].slot)):
            places.pop()
        return bool(places)

    def _is_full(self, slot: Slot) -> bool:
        """Whether memory would run out with one more heavy stage there."""
        if not self._allocator.is_limited or "heavy" not in slot.takes:
            return False
        return self._allocator.is_full_of_heavy(slot.profile, self._num_begun[slot.profile])

    def _close(self, demand: Demand, best: Choice | None) -> None:
        """The first that finds no room books the place it waits for; all that could hold it are kept for it."""
        self.closed.add(demand)
        if best:
            best.booked.book(best.group.shares, best.end_s)
        if best and isinstance(best.booked, JointPlace):
            return  # its parts are kept, and are enough
        for slot, shares in self._allocator.fitting(demand):
            is_enough = (demand.least_in(slot) or 1) <= slot.num_gpus
            if is_enough and self._slots[slot.name].can_hold(shares):
                self._slots[slot.name].keep(best.end_s if best else self._now + RECHECK_S)

    def _wait(self, demand: Demand, best: Choice | None) -> None:
        """By choice: a better place than those with room will be free."""
        if best:
            if isinstance(best.group, PlaceGroup):
                self._end_early(demand, best.group)
            best.booked.book(best.group.shares, best.end_s)
        recheck_at = max(self._now + RECHECK_S, best.start_s if best else 0.0)
        self.recheck_at = min(recheck_at, self.recheck_at or recheck_at)

    def _end_early(self, demand: Demand, better: PlaceGroup) -> None:
        """Where all that asks for the same would rather wait too, however long the queue, no turn of it is needed.

        Else a slow core, idle beside cards, would have every stage that is ready compared with them at every turn.
        """
        if demand in self._walked:
            return
        self._walked.add(demand)
        tasks = self._ready(demand)
        latest_s = better.latest_start_s(sum(self._seconds(task, demand, better.slot) for task in tasks))
        for group in self._groups_of(demand):
            if group.is_open and any(self._is_sooner(task, demand, group, better, latest_s) for task in tasks):
                return
        self.closed.add(demand)

    def _is_sooner(
        self, task: Task, demand: Demand, group: PlaceGroup | JointGroup, better: PlaceGroup, latest_s: float
    ) -> bool:
        """Whether a stage would end sooner in a place that has room, if it had to wait for the better one so long."""
        end_s = group.best()[0][0] + self._seconds(task, demand, group.slot)
        return end_s <= latest_s + self._seconds(task, demand, better.slot)


def _group(booked: Sequence[BookedSlot], shares: int, demand: Demand) -> PlaceGroup | JointGroup | None:
    """-> of slots in which a stage takes as long: as many of them at once as it asks for, or as there are.

    None where these are not enough for it.
    """
    slot = booked[0].slot
    least, there = demand.least_in(slot) or 1, len(booked) if slot.can_join else slot.num_gpus
    if least > there:
        return None
    num = max(least, min(demand.cards, there)) if slot.can_join else 1
    return JointGroup(booked, num) if num > 1 else PlaceGroup(booked, shares)
