"""Whether the speed of the disk has a say in which teachers' answers are kept, and by which numbers.

Small caches are chosen by FLOPs alone: nothing is measured for them. Where a large one is in question, the disk's speed
and the device's are taken once, by `plan` or a study's first run, and kept in the study's record: a choice that flipped
between two runs of a study would change the last digits of what is left to do.
"""

from collections.abc import Callable

from ablate.planning.cost_model import CostModel, Device
from ablate.planning.plan import Plan
from ablate.store.disk_speed import Speeds, disk_speed
from ablate.store.hub_lock import Pins

LARGE_BYTES = 1 << 30
"""A slow disk writes and reads less in seconds."""


def with_speeds(pins: Pins, plan: Plan, device: Callable[[], Device]) -> Pins:
    """-> the pins of a plan, with what its large caches are weighed by; the same where that is known, or none is."""
    if pins.speeds or not _has_large_cache(plan):
        return pins
    disk, on = disk_speed(plan.store), device()
    return pins._replace(speeds=Speeds(disk.write, disk.read, on.flops_per_s, on.model or "this machine"))


def _has_large_cache(plan: Plan) -> bool:
    cost = CostModel(plan)
    return any((cost(choice.cache).disk_bytes or 0) >= LARGE_BYTES for choice in plan.caches if choice.cache)
