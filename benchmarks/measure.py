"""Seconds and memory of a step, in the process that takes it."""

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Measured(NamedTuple):
    """One step."""

    seconds: float
    """CPU seconds of the process; on a GPU, from one synchronisation to the next."""
    peak: int
    """Bytes above the loaded models, highest so far."""


class Meter:
    """Counts from now, which is when the models are loaded.

    Memory of a CPU process: the kernel's high-water mark of resident memory, reset now, less what is resident now.
    """

    def __init__(self, device: str) -> None:
        self.is_cpu = device == "cpu"
        gc.collect()
        if self.is_cpu:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        else:
            torch.cuda.reset_peak_memory_stats()
        self._models = _resident("VmRSS") if self.is_cpu else torch.cuda.memory_allocated()

    def measure(self, step: Callable[[], None]) -> Measured:
        begun = self._now()
        step()
        seconds = self._now() - begun
        peak = _resident("VmHWM") if self.is_cpu else torch.cuda.max_memory_allocated()
        return Measured(seconds, peak - self._models)

    def _now(self) -> float:
        if self.is_cpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {name}")
