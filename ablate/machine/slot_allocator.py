"""Who holds which slot, or how much of which card; without files or processes of its own."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ablate.machine.slots import Slot, Work


class Demand(NamedTuple):
    """What a stage asks for."""

    work: Work
    memory_bytes: int | None = None
    """As estimated; None: it takes a card of its own."""
    least_bytes: int = 0
    """It cannot do with less."""


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
        self.most_heavy: int | None = None
        """So many heavy stages at once: with more, this machine's memory ran out."""

    def find(self, demand: Demand, barred: Collection[str] = ()) -> Placement | None:
        """-> room for a stage, on the emptiest slot that has it."""
        if demand.work == "heavy" and self.most_heavy is not None and self.num_heavy >= self.most_heavy:
            return None
        places = [place for place in self.fitting(demand) if place.slot.name not in barred]
        return max((place for place in places if place.shares <= self._free(place.slot)), key=self._room, default=None)

    def fitting(self, demand: Demand) -> list[Placement]:
        """-> every slot that could hold a stage if it were empty: as estimated, or else with luck."""
        open_ = [slot for slot in self._slots.values() if demand.work in slot.takes and slot.name not in self._avoided]
        roomy = [slot for slot in open_ if slot.holds(demand.memory_bytes or demand.least_bytes)]
        slots = roomy or [slot for slot in open_ if slot.holds(demand.least_bytes)]
        return [Placement(slot, slot.shares_of(demand.memory_bytes)) for slot in slots]

    def awaited(self, demand: Demand) -> set[str]:
        """-> the slots that will have room once our own stages there have ended, whatever others hold."""
        return {slot.name for slot, shares in self.fitting(demand) if shares <= self._ours(slot)}

    def hold(self, key: str, name: str | None, shares: int | None = None) -> None:
        """A stage is at work in a slot, found so perhaps: what is full already is left as it is."""
        slot = self._slots.get(name or "")
        if slot is None or self._used[slot.name] + (shares or slot.num_shares) > slot.num_shares:
            return
        self._held[key] = Placement(slot, shares or slot.num_shares)
        self._used[slot.name] += self._held[key].shares

    def release(self, key: str) -> Slot | None:
        """-> the slot that a stage leaves."""
        place = self._held.pop(key, None)
        if place:
            self._used[place.slot.name] -= place.shares
        return place.slot if place else None

    def take(self, taken: dict[str, int]) -> None:
        """From now on others hold so many shares of these slots, and none of the rest."""
        self._taken = taken

    def avoid(self, slot: Slot) -> None:
        """Nothing is placed there any more in this run."""
        self._avoided.add(slot.name)

    def forgive(self, slot: Slot) -> None:
        self._avoided.discard(slot.name)

    @property
    def num_heavy(self) -> int:
        """Stages at work in slots that take heavy ones."""
        return sum("heavy" in place.slot.takes for place in self._held.values())

    def _ours(self, slot: Slot) -> int:
        return slot.num_shares - self._taken.get(slot.name, 0)

    def _free(self, slot: Slot) -> int:
        return self._ours(slot) - self._used[slot.name]

    def _room(self, place: Placement) -> int:
        return self._free(place.slot)
