"""What others hold of the slots, looked at now and then; who comes and goes is noted."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ablate.execution.fleet import Fleet
from ablate.machine.slots import Taken
from ablate.store.attempt import Attempt

LOOK_EVERY_S = 5.0


class OccupiedSlots:
    """What others hold is not ours to give."""

    def __init__(self, fleet: Fleet, note: Callable[[str], None]) -> None:
        self._fleet, self._note = fleet, note
        self._taken: Mapping[str, Taken] = {}
        self._look_at = 0.0

    def look_at_once(self) -> None:
        """The next look is due, however short a time ago the last one was."""
        self._look_at = 0.0

    def taken(self, at_work: Callable[[], Sequence[Attempt]]) -> Mapping[str, Taken] | None:
        """-> name of a slot: what others than the attempts at work hold; None while no look is due."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        taken = self._fleet.taken(at_work())
        held, held_before = ({name for name in one if one[name].shares} for one in (taken, self._taken))
        for why in sorted({taken[name].why for name in held - held_before}):
            self._note(f"{why}: what does not fit beside goes elsewhere or waits")
        for names in _grouped(held_before - held, self._taken):
            self._note(f"{names} free again")
        self._taken = taken
        return taken


def _grouped(names: Collection[str], taken: Mapping[str, Taken]) -> Iterator[str]:
    """-> names of slots that were held for one reason, with their verb: a cluster out of reach is told of once."""
    for why in sorted({taken[name].why for name in names}):
        alike = sorted(name for name in names if taken[name].why == why)
        more = f" and {len(alike) - 1} more are" if len(alike) > 1 else " is"
        yield alike[0] + more
