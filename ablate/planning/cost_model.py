"""What a plan's stages cost: what their kinds say, and the time that follows, corrected by what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ablate.machine import gpus
from ablate.machine.slots import Slot
from ablate.planning.plan import Plan
from ablate.planning.timing import Timing, measured
from ablate.store.kind import KINDS, Cost
from ablate.store.stage import Stage

CPU_FLOPS = 4e10
"""Of one thread, a guess that the first measured stage replaces."""
START_S = 3.0
"""To load a model and build a task, whatever its size."""


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
        """Corrected by what stages of this kind really took here."""
        return self.planned_s(stage) * self.timing.ratio(stage.kind)

    def planned_s(self, stage: Stage) -> float:
        """By its FLOPs alone."""
        return self._planned_s(stage, self.device)

    def _planned_s(self, stage: Stage, device: Device) -> float:
        return START_S + (self(stage).flops or 0.0) / device.flops_per_s

    def memory(self, stage: Stage) -> tuple[int | None, int]:
        """-> an estimate, and what the stage cannot do with less."""
        held = self(stage).held
        return (held.estimate, held.weights) if held else (None, 0)

    @cached_property
    def _costs(self) -> dict[str, Cost]:
        return {}

    @cached_property
    def timing(self) -> Timing:
        """What this plan's finished stages took on such devices, over their estimates."""
        timing = Timing()
        devices = {device.sort: device for device in (*self.others, self.device)}
        for stage in self.plan.stages:
            known = measured(self.plan.store, stage)
            device = devices.get(known.device, devices.get(None)) if known else None
            if known and device:
                timing.add(stage.kind, self._planned_s(stage, device), known.seconds, device.sort or known.device)
        return timing
