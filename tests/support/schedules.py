"""Stages as a scheduler starts them, without a driver."""

from ablate.execution.scheduler import Scheduler


def begin(it: Scheduler, now: float = 0.0) -> dict[str, str]:
    """Starts all that may start; -> where each went."""
    placed = {}
    while start := it.next_start(now):
        it.run(start.key, start.slot.name, start.shares)
        placed[start.key] = start.slot.name
    return placed
