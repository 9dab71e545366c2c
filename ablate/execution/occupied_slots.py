"""What others hold of the slots, looked at now and then; who comes and goes is noted."""

import time
from collections.abc import Callable, Mapping, Sequence

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

    def shares(self, at_work: Callable[[], Sequence[Attempt]]) -> dict[str, int] | None:
        """-> name of a slot: shares that others than the attempts at work hold; None while no look is due."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        taken = self._fleet.taken(at_work())
        for name in taken.keys() - self._taken.keys():
            self._note(f"{taken[name].why}: what does not fit beside goes elsewhere or waits")
        for name in self._taken.keys() - taken.keys():
            self._note(f"{name} is free again")
        self._taken = taken
        return {name: others.shares for name, others in taken.items()}
