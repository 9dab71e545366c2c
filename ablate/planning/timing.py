"""How long stages take here: planned costs, corrected by what was measured, apart for each sort of device."""

import statistics
from bisect import insort
from collections.abc import Mapping
from typing import NamedTuple

from ablate.machine.gpus import sort_of
from ablate.store.kind import KINDS
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.store.store import Store

MOVED = 1.1
"""A kind's number counts as another once it differs by so much."""


class Timing:
    """Measured over planned seconds: one number a kind and sort of device, the median of what was seen."""

    def __init__(self) -> None:
        self._ratios: dict[str, list[float]] = {}
        """By kind, on whatever device."""
        self._on_device: dict[tuple[str, str], list[float]] = {}
        self._on_cards: dict[tuple[str, str, int], list[float]] = {}
        self._known: dict[tuple[str, str | None, int], float] = {}

    @property
    def is_known(self) -> bool:
        """Whether anything was measured yet."""
        return bool(self._ratios)

    def add(self, kind: str, planned_s: float, measured_s: float, device: str = "", num_cards: int = 1) -> None:
        """`device`: on which it was, and on how many of them at once; the plan was for the same."""
        if planned_s > 0 and measured_s > 0:
            ratio = measured_s / planned_s
            insort(self._ratios.setdefault(kind, []), ratio)
            insort(self._on_device.setdefault((kind, device), []), ratio)
            insort(self._on_cards.setdefault((kind, device, num_cards), []), ratio)
            self._known.clear()

    def ratio(self, kind: str, device: str | None = None, num_cards: int = 1) -> float:
        """On so many of one device, or on all. What was not measured on as many goes like on fewer or more of them,
        what was not measured on a device like elsewhere.

        A kind that was not measured goes like those that were: fetching and tokenising say nothing of it.
        """
        if (kind, device, num_cards) not in self._known:
            self._known[kind, device, num_cards] = self._ratio(kind, device, num_cards)
        return self._known[kind, device, num_cards]

    def _ratio(self, kind: str, device: str | None, num_cards: int) -> float:
        if device is not None and (kind, device, num_cards) in self._on_cards:
            return statistics.median(self._on_cards[kind, device, num_cards])
        if device is not None and (kind, device) in self._on_device:
            return statistics.median(self._on_device[kind, device])
        if kind in self._ratios:
            return statistics.median(self._ratios[kind])
        known = [self.ratio(other) for other in self._ratios if not KINDS[other].is_light]
        return statistics.median(known) if known else 1.0

    def has_moved(self, since: Mapping[str, float]) -> bool:
        """Whether a kind's number is no longer about what it was."""
        return any(max(self.ratio(kind) / then, then / self.ratio(kind)) > MOVED for kind, then in since.items())


class Measured(NamedTuple):
    """What a committed stage took in one go."""

    seconds: float
    device: str
    """Which sort of one it was on; empty where that was not kept."""
    is_shared: bool = False
    """Whether it had a part of its card alone, and others perhaps the rest."""
    num_cards: int = 1


def measured(store: Store, stage: Stage) -> Measured | None:
    """-> None where it was resumed, or is not committed."""
    record = read_sound(store.folder(stage), "stage.json")
    provenance = record["provenance"] if record else {}
    if provenance.get("attempts", 1) > 1 or "seconds" not in provenance:
        return None
    is_shared = provenance.get("card_share", 1.0) < 1
    device = sort_of(provenance.get("device") or "")
    num_cards = provenance.get("job_cards") or len(provenance.get("cards", ["one"]))
    return Measured(float(provenance["seconds"]), device, is_shared, num_cards)


def measured_s(store: Store, stage: Stage) -> float | None:
    """-> what a committed stage took in one go; None where it was resumed."""
    known = measured(store, stage)
    return known.seconds if known else None
