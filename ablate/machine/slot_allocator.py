"""Who holds which slot, or how much of which card; without files or processes of its own."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ablate.machine.slots import JOINT, Slot, Work, joined


class Demand(NamedTuple):
    """What a stage asks for."""

    work: Work
    memory_bytes: int | None = None
    """As estimated; None: it takes a card of its own."""
    least_bytes: int = 0
    """It cannot do with less."""
    cards: int = 1
    """So many places of one machine, each whole; fewer where there are fewer."""
    least_cards: tuple[tuple[int, int], ...] = ()
    """Bytes of a card -> so many of these, whole, and no fewer."""

    def least_in(self, slot: Slot) -> int | None:
        """-> how many such slots it takes at least; None: one, as far as that holds it."""
        return dict(self.least_cards).get(slot.memory_bytes or 0) if slot.is_card and self.least_cards else None

    def shares_in(self, slot: Slot) -> int:
        is_whole = self.cards > 1 or self.least_in(slot) is not None
        return slot.num_shares if is_whole else slot.shares_of(self.memory_bytes)

    @property
    def is_joint(self) -> bool:
        """Whether it may take more than one slot."""
        return self.cards > 1 or any(num > 1 for _, num in self.least_cards)


class Placement(NamedTuple):
    """A slot, and how many of its shares are meant."""

    slot: Slot
    shares: int


class SlotAllocator:
    """The slots of a run, each held whole or in shares."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = {slot.name: slot for slot in slots}
        self._held: dict[str, Placement] = {}
        """By key of the stage."""
        self._used: Counter[str] = Counter()
        self._taken: dict[str, int] = {}
        """Shares of slots that are not ours to give at the moment."""
        self._avoided: set[str] = set()
        self._most_heavy: dict[str, int] = {}
        """By profile: so many heavy stages at once; with more, memory ran out there."""
        self._fitting: dict[Demand, list[Placement]] = {}
        self.num_changes = 0
        """Who counts them knows whether anything is other than it was."""

    def fitting(self, demand: Demand) -> list[Placement]:
        """-> every slot that could hold a stage if it were empty: as estimated, or else with luck."""
        if demand not in self._fitting:
            self._fitting[demand] = self._fitting_now(demand)
        return self._fitting[demand]

    def _fitting_now(self, demand: Demand) -> list[Placement]:
        open_ = [slot for slot in self._slots.values() if demand.work in slot.takes and slot.name not in self._avoided]
        together: Counter[tuple[str, str | None, int | None] | str] = Counter()
        for slot in open_:
            together[_machine_of(slot)] += slot.num_gpus
        enough = {slot.name: together[_machine_of(slot)] >= (demand.least_in(slot) or 1) for slot in open_}
        roomy = [slot for slot in open_ if _is_roomy(slot, demand) and enough[slot.name]]
        slots = roomy or [slot for slot in open_ if slot.holds(demand.least_bytes) and enough[slot.name]]
        return [Placement(slot, demand.shares_in(slot)) for slot in slots]

    def hold(self, key: str, name: str | None, shares: int | None = None, num_cards: int | None = None) -> Slot | None:
        """A stage is at work in a slot, found so perhaps: what is full already is left as it is. -> the slot it has.

        `num_cards`: of those of its job, it uses so many; all unless given.
        """
        slots = [slot for slot in self._slots_named(name or "") if self._has_room(slot, shares or slot.num_shares)]
        if not slots:
            return None
        slot = joined(slots)
        self._held[key] = Placement(slot.using(num_cards or slot.num_gpus), shares or slots[0].num_shares)
        for slot in slots:
            self._used[slot.name] += self._held[key].shares
        self.num_changes += 1
        return self._held[key].slot

    def _slots_named(self, name: str) -> list[Slot]:
        """-> one, or those that are one for a stage, as far as this run has them."""
        names = (name,) if name in self._slots else name.split(JOINT)
        return [self._slots[name] for name in names if name in self._slots]

    def _has_room(self, slot: Slot, shares: int) -> bool:
        return self._used[slot.name] + shares <= slot.num_shares

    def release(self, key: str) -> Slot | None:
        """-> the slot that a stage leaves."""
        place = self._held.pop(key, None)
        if place:
            for name in place.slot.parts:
                self._used[name] -= place.shares
            self.num_changes += 1
        return place.slot if place else None

    def take(self, taken: Mapping[str, int]) -> None:
        """From now on others hold so many shares of these slots, and none of the rest."""
        self._taken = dict(taken)
        self.num_changes += 1

    def avoid(self, slot: Slot) -> None:
        """Nothing is placed there any more in this run."""
        self._avoided.update(slot.parts)
        self._forget()

    def forgive(self, slot: Slot) -> None:
        self._avoided.difference_update(slot.parts)
        self._forget()

    def _forget(self) -> None:
        self._fitting.clear()
        self.num_changes += 1

    def limit_heavy(self, profile: str) -> None:
        """No more heavy stages at once than there are now: with one more, memory ran out in this profile's slots."""
        self._most_heavy[profile] = max(1, self.num_heavy(profile))
        self.num_changes += 1

    @property
    def is_limited(self) -> bool:
        """Whether memory has run out in any profile's slots."""
        return bool(self._most_heavy)

    def is_full_of_heavy(self, profile: str, num_more: int = 0) -> bool:
        """Whether there are as many heavy stages as there may be, with so many more than are at work."""
        most = self._most_heavy.get(profile)
        return most is not None and self.num_heavy(profile) + num_more >= most

    def num_heavy(self, profile: str) -> int:
        """Stages at work in a profile's slots that take heavy ones."""
        slots = (place.slot for place in self._held.values())
        return sum(slot.profile == profile and "heavy" in slot.takes for slot in slots)

    @property
    def held(self) -> Mapping[str, Placement]:
        """Key of a stage at work -> where it is."""
        return self._held

    def ours(self, slot: Slot) -> int:
        """-> shares that others leave."""
        return max(0, slot.num_shares - self._taken.get(slot.name, 0))

    def free(self, slot: Slot) -> int:
        return self.ours(slot) - self._used[slot.name]

    @property
    def slots(self) -> Iterable[Slot]:
        return self._slots.values()


def _machine_of(slot: Slot) -> tuple[str, str | None, int | None] | str:
    """-> what slots have in common that can be one for a stage."""
    return (slot.profile, slot.model, slot.memory_bytes) if slot.can_join else slot.name


def _is_roomy(slot: Slot, demand: Demand) -> bool:
    return demand.least_in(slot) is not None or slot.holds(demand.memory_bytes or demand.least_bytes)
