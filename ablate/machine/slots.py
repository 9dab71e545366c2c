"""Places for stages: what a slot takes and holds, in shares, and what the user said about them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.core.values import Cards

Work: TypeAlias = Literal["online", "light", "heavy"]

Spread: TypeAlias = Literal["layers", "weights"]
"""How a model larger than a card lies over several: its layers one after the other, or each weight in shards."""

SHARES = 4
"""Of a card: so many small stages at most are on it at once."""

MARGIN = 1.25
"""Room beside an estimate where others share the card."""

JOINT = " + "
"""Between the names of places that are one for a stage: gpu 0 + gpu 1."""


@dataclass(frozen=True)
class Slot:
    """A place for one stage at a time, or for as many as its shares allow."""

    name: str
    takes: frozenset[Work]
    device: Literal["cpu", "cuda"] = "cpu"
    gpu: str | None = None
    """UUID of the card, as in CUDA_VISIBLE_DEVICES; of several the first."""
    threads: int = 1
    model: str | None = None
    """Name of the card or the processor."""
    num_shares: int = 1
    memory_bytes: int | None = None
    """None: not known, and then a stage takes all of it."""
    profile: str = "local"
    """Name of the profile whose executor places workers here."""
    gpus: tuple[str, ...] = ()
    """Of a place with several cards of one machine, all of them, `gpu` among them."""
    can_join: bool = False
    """For one stage, with others of its profile: all these are on one machine."""
    num_gpus: int = 1
    """Cards of the job that a cluster gives this place; which they are it assigns when the job begins."""

    @property
    def is_card(self) -> bool:
        """Whether stages in it have a card: one that is named here, or that a cluster assigns when they come to it."""
        return self.gpu is not None or self.device == "cuda"

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Names of the places that are one for a stage, or its own."""
        return tuple(self.name.split(JOINT)) if self.can_join else (self.name,)

    def holds(self, least_bytes: int) -> bool:
        """Whether a stage that cannot do with less fits in here."""
        return self.memory_bytes is None or least_bytes <= self.memory_bytes

    def shares_of(self, memory_bytes: int | None) -> int:
        """-> how many shares a stage of such an estimate takes; all where it is not known."""
        if memory_bytes is None or self.memory_bytes is None:
            return self.num_shares
        return min(self.num_shares, math.ceil(memory_bytes * MARGIN * self.num_shares / self.memory_bytes))

    @property
    def num_places(self) -> int:
        """Cards, or places without one, that a stage has here."""
        return len(self.parts) * self.num_gpus

    def using(self, num_gpus: int) -> "Slot":
        """-> the same place, for a stage that uses only so many of the cards of its job."""
        return replace(self, num_gpus=num_gpus) if 0 < num_gpus < self.num_gpus else self

    def num_cards(self, cards: Cards) -> int:
        """-> how many processes share a stage here that a study gives so many cards: one a card, whatever it says.

        Without cards it is what the study says.
        """
        if self.is_card:
            return max(self.num_gpus, len(self.gpus))
        return 1 if cards == "auto" else cards

    def record(self, shares: int | None = None) -> dict[str, Any]:
        """For attempt.json; `shares`: those that the attempt holds, all unless said."""
        named = {"takes": sorted(self.takes), "parts": list(self.parts)}
        return asdict(self) | named | {"shares": shares or self.num_shares}


def joined(slots: Sequence[Slot]) -> Slot:
    """-> places of one machine as one place for a stage."""
    first = slots[0]
    if len(slots) == 1:
        return first
    return replace(
        first,
        name=JOINT.join(slot.name for slot in slots),
        gpus=tuple(slot.gpu for slot in slots if slot.gpu),
        threads=sum(slot.threads for slot in slots),
        memory_bytes=min((slot.memory_bytes for slot in slots if slot.memory_bytes), default=None),
    )


@dataclass(frozen=True)
class Placing:
    """What the user said about where stages run."""

    gpus: tuple[str, ...] | None = None
    """Indices or UUIDs; every visible card unless said."""
    num_jobs: int | None = None
    """Stages at once where there is no card; one a core unless said."""
    uses_fork_server: bool = True
    """Start workers from a process that has imported what they need."""
    profile: str = "local"
    """Under which name the user knows this place: a profile of executors.yaml, or an executor's own name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the profile says beside its kind: for the executor to check and to understand."""


class Taken(NamedTuple):
    """What stands between a slot and its next stage: others hold of it, or a job has to queue first."""

    shares: int
    why: str
    """Which card, and who: pid, user and memory. Empty where nobody needs to know."""
    wait_s: float = 0.0
    """So long, it is thought now, until a stage that is handed to the slot begins: until its job starts."""
