"""What a plan's stages cost: what their kinds say, and the time that follows, corrected by what was measured."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ablate.machine import card_shares, gpus
from ablate.machine.slots import Slot
from ablate.planning.plan import Plan
from ablate.planning.timing import Timing, measured
from ablate.store.kind import KINDS, Cost
from ablate.store.memory import Held
from ablate.store.stage import Stage

CPU_FLOPS = 4e10
"""Of one thread, a guess that the first measured stage replaces."""
START_S = 3.0
"""To load a model and build a task, whatever its size."""

EFFICIENCY = 0.9
"""What twice as many cards gain a stage, over twice: a guess, which stages on as many cards correct."""
JOIN_S = 5.0
"""Until a stage's further processes have a card each and hear of one another: a guess."""


class Device(NamedTuple):
    """What a plan's stages are to run on."""

    model: str | None = None
    """Of the card or the processor, as a result's provenance says; None: whatever."""
    flops_per_s: float = CPU_FLOPS

    @property
    def sort(self) -> str | None:
        """What is alike in speed; see `gpus.sort_of`."""
        return gpus.sort_of(self.model) if self.model is not None else None


ANY = Device()
USUAL = Device("a usual card", gpus.flops_per_s("a usual card"))
"""Where there is none to name; nothing was ever measured on it."""


def device_of(slots: Iterable[Slot]) -> Device:
    """-> what heavy stages run on in these slots: in the first for them, where they differ."""
    return next((device_in(slot) for slot in slots if "heavy" in slot.takes), ANY)


def devices_of(slots: Iterable[Slot]) -> tuple[Device, ...]:
    """-> every sort of device that heavy stages may run on."""
    return tuple(dict.fromkeys(device_in(slot) for slot in slots if "heavy" in slot.takes))


def device_in(slot: Slot) -> Device:
    """-> what a stage in one slot runs on."""
    return Device(slot.model, gpus.flops_per_s(slot.model or "") if slot.device == "cuda" else CPU_FLOPS)


def on_cards(seconds: float, num_cards: int, start_s: float = START_S) -> float:
    """-> what a stage takes whose rows so many cards share, from what it takes on one.

    `start_s`: of that, what no card shortens.
    """
    if num_cards == 1:
        return seconds
    return start_s + JOIN_S + max(0.0, seconds - start_s) / (num_cards * math.pow(EFFICIENCY, math.log2(num_cards)))


@dataclass(frozen=True)
class CostModel:
    """Costs of one plan's stages on one kind of device."""

    plan: Plan
    device: Device = ANY
    others: tuple[Device, ...] = ()
    """Devices that stages may run on as well: what was measured there corrects what is thought of them."""

    def __call__(self, stage: Stage) -> Cost:
        known = self._costs.get(stage.key)
        if known is None:
            kind, plan = KINDS[stage.kind], self.plan
            known = self._costs[stage.key] = kind.cost(stage, plan.store, plan.aids(stage))
        return known

    def seconds(self, stage: Stage) -> float:
        """Corrected by what stages of this kind really took on such a device, or else on others."""
        return self.planned_s(stage) * self.timing.ratio(stage.kind, self.device.sort)

    def planned_s(self, stage: Stage) -> float:
        """By its FLOPs alone."""
        return self._planned_s(stage, self.device)

    def _planned_s(self, stage: Stage, device: Device) -> float:
        usual = card_shares.share_of(device.model, self._work(stage)) / gpus.USE
        return START_S + (self(stage).flops or 0.0) / (device.flops_per_s * usual)

    def _work(self, stage: Stage) -> str:
        """-> what `card_shares` calls it."""
        if stage.kind != "distill":
            return stage.kind
        return "distill, kept" if self.plan.aids(stage) else "distill, live"

    def memory(self, stage: Stage) -> tuple[int | None, int] | Held:
        """-> an estimate, and what the stage cannot do with less."""
        return self(stage).held or (None, 0)

    @cached_property
    def _costs(self) -> dict[str, Cost]:
        return {}

    @cached_property
    def timing(self) -> Timing:
        """What this plan's finished stages took on such devices, over their estimates.

        One that shared its card counts only where none of its kind had one for itself: how long it took says as much
        of its neighbours.
        """
        timing = Timing()
        devices = {device.sort: device for device in (*self.others, self.device)}
        known = {stage: one for stage in self.plan.stages if (one := measured(self.plan.store, stage))}
        alone = {(stage.kind, one.device) for stage, one in known.items() if not one.is_shared}
        for stage, one in known.items():
            device = devices.get(one.device, devices.get(None))
            if device and not (one.is_shared and (stage.kind, one.device) in alone):
                planned_s = on_cards(self._planned_s(stage, device), one.num_cards)
                timing.add(stage.kind, planned_s, one.seconds, device.sort or one.device, one.num_cards)
        return timing
