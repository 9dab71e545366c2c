"""A library with the few functions of NVIDIA's that ablate calls, for machines that there are none of here."""

from dataclasses import dataclass, field
from typing import NamedTuple

import pynvml

GIB = 1 << 30


class Process(NamedTuple):
    pid: int
    usedGpuMemory: int | None


class Memory(NamedTuple):
    total: int
    free: int


@dataclass
class Device:
    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    processes: list[Process] = field(default_factory=list)
    slices: "list[Device | None] | None" = None
    """What MIG has cut it into; a place may have none."""
    is_lost: bool = False
    is_blind: bool = False
    """It does not say who is on it, as in some containers."""
    unseen: int = 0
    """Bytes held by nobody that is told."""


@dataclass
class FakeNvml:
    """Has the devices that a test gives it; what it holds may be changed between two looks."""

    devices: list[Device]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        if self.devices[index].is_lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: Device) -> str:  # noqa: N802
        return device.uuid

    def nvmlDeviceGetName(self, device: Device) -> bytes:  # noqa: N802 (bytes in older versions)
        return device.name.encode()

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> Memory:  # noqa: N802
        held = sum(process.usedGpuMemory or 0 for process in device.processes) + device.unseen
        return Memory(device.total, device.total - held)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[Process]:  # noqa: N802
        if device.is_blind:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return device.processes

    def nvmlDeviceGetMigMode(self, device: Device) -> tuple[int, int]:  # noqa: N802
        if device.slices is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:  # noqa: N802
        return len(device.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:  # noqa: N802
        piece = (device.slices or ())[index]
        if piece is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return piece
