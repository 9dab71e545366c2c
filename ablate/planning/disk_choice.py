"""Whether the speed of the disk has a say in which teachers' answers are kept, and by which numbers.

Small caches are chosen by FLOPs alone: nothing is measured for them. Where a large one is in question, the disk's speed
and the device's are taken once, by `plan` or a study's first run, and kept in the study's record: a choice that flipped
between two runs of a study would change the last digits of what is left to do. So what had begun to be kept before (by
a version that took no speeds, or while no cache was large) stays as it is.
"""

from collections.abc import Callable, Sequence

from ablate.planning.cost_model import CostModel, Device
from ablate.planning.plan import Plan
from ablate.store.disk_speed import Speeds, disk_speed
from ablate.store.hub_lock import Pins
from ablate.store.stage import Stage

LARGE_BYTES = 1 << 30
"""A slow disk writes and reads less in seconds."""


def with_speeds(pins: Pins, plan: Plan, device: Callable[[], Device]) -> Pins:
    """-> the pins of a plan, with what its large caches are weighed by; the same where that is known or none is new."""
    caches = [choice.cache for choice in plan.caches if choice.cache]
    begun = {cache.key for cache in caches if plan.store.is_begun(cache)}
    if pins.speeds or not _has_large(plan, [cache for cache in caches if cache.key not in begun]):
        return pins
    disk, on = disk_speed(plan.store), device()
    of_device = on.model or "this machine"
    return pins._replace(speeds=Speeds(disk.write, disk.read, on.flops_per_s, of_device, tuple(sorted(begun))))


def _has_large(plan: Plan, caches: Sequence[Stage]) -> bool:
    cost = CostModel(plan)
    return any((cost(cache).disk_bytes or 0) >= LARGE_BYTES for cache in caches)
