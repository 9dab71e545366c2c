"""Several slots of one machine as one place for a stage: which of them are free first, and how they are booked."""

from collections.abc import Sequence
from functools import cached_property

from ablate.execution.booked_slots import BookedSlot, Standing
from ablate.machine.slots import Slot, joined


class JointPlace:
    """Some booked slots, each of them whole."""

    def __init__(self, parts: Sequence[BookedSlot]) -> None:
        self._parts = parts

    @cached_property
    def slot(self) -> Slot:
        return joined([part.slot for part in self._parts])

    def book(self, shares: int, until_s: float) -> None:
        """From as soon as all have room; those that have it now are kept until then."""
        is_open = all(part.is_open(shares) for part in self._parts)
        for part in self._parts:
            part.book(shares, until_s)
            if not is_open:
                part.keep(until_s)


class JointGroup:
    """Slots of which any so many are one place for a stage, and the best of these."""

    def __init__(self, slots: Sequence[BookedSlot], num: int) -> None:
        self.shares = slots[0].slot.num_shares
        self._slots, self._num = slots, num

    @property
    def slot(self) -> Slot:
        """That of the best."""
        return self.best()[1].slot

    @property
    def is_open(self) -> bool:
        """Whether so many have room now."""
        return sum(booked.is_open(self.shares) for booked in self._slots) >= self._num

    def best(self) -> tuple[Standing, JointPlace]:
        by_standing = sorted(self._slots, key=lambda booked: booked.standing(self.shares))[: self._num]
        starts_s, busy, crowded, numbers = zip(*(booked.standing(self.shares) for booked in by_standing), strict=True)
        parts = sorted(by_standing, key=lambda booked: booked.standing(self.shares)[-1])
        return (max(starts_s), any(busy), max(crowded), min(numbers)), JointPlace(parts)
