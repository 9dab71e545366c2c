"""What it means that a process was ended by a signal."""

import signal

from ablate.core.failures import Ending
from ablate.machine import address_space


def death_of(number: int, is_memory_out: bool) -> Ending:
    """-> what a signal means; `is_memory_out`: the kernel has killed for want of memory meanwhile."""
    return address_space.explained(_death_of(number, is_memory_out), death=number)


def _death_of(number: int, is_memory_out: bool) -> Ending:
    death = f"killed by {signal.Signals(number).name} (exit code {128 + number})"
    if number == signal.SIGBUS:
        return Ending("memory", f"{death}: /dev/shm or a mapped file's disk is full")
    if number != signal.SIGKILL:
        return Ending("killed", death)
    if is_memory_out:
        return Ending("memory", f"{death}: this machine's memory ran out")
    return Ending("killed", f"{death}: memory ran out, or somebody killed it")
