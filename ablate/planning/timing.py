"""How long stages take here: planned costs, corrected by what was measured."""

import statistics
from bisect import insort
from collections.abc import Mapping

from ablate.store.kind import KINDS
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.store.store import Store

MOVED = 1.1
"""A kind's number counts as another once it differs by so much."""


class Timing:
    """Measured over planned seconds: one number a kind, the median of what was seen."""

    def __init__(self) -> None:
        self._ratios: dict[str, list[float]] = {}

    @property
    def is_known(self) -> bool:
        """Whether anything was measured yet."""
        return bool(self._ratios)

    def add(self, kind: str, planned_s: float, measured_s: float) -> None:
        if planned_s > 0 and measured_s > 0:
            insort(self._ratios.setdefault(kind, []), measured_s / planned_s)

    def ratio(self, kind: str) -> float:
        """A kind that was not measured goes like those that were: fetching and tokenising say nothing of it."""
        if kind in self._ratios:
            return statistics.median(self._ratios[kind])
        known = [self.ratio(other) for other in self._ratios if not KINDS[other].is_light]
        return statistics.median(known) if known else 1.0

    def has_moved(self, since: Mapping[str, float]) -> bool:
        """Whether a kind's number is no longer about what it was."""
        return any(max(self.ratio(kind) / then, then / self.ratio(kind)) > MOVED for kind, then in since.items())


def measured_s(store: Store, stage: Stage, device: str | None = None) -> float | None:
    """-> what a committed stage took in one go, on this device where one is named; None where it was resumed."""
    record = read_sound(store.folder(stage), "stage.json")
    provenance = record["provenance"] if record else {}
    if provenance.get("attempts", 1) > 1 or device not in (None, provenance.get("device")):
        return None
    return float(provenance["seconds"]) if "seconds" in provenance else None
