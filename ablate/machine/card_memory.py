"""The device by which CUDA manages memory (nvidia-uvm), where nobody has used a card since this machine started."""

import contextlib
import subprocess
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
DEVICE = Path("/dev/nvidia-uvm")
_HELPER = ["nvidia-modprobe", "-c=0", "-u"]
"""NVIDIA's own, which CUDA calls too: it takes the superuser's rights, as no program can once a stage has left the
network by a namespace of users or a filter."""
LIMIT_S = 30.0


def require_device() -> None:
    """Has it made where it lacks; what cannot be made is left to CUDA to tell."""
    if DRIVER.exists() and not DEVICE.exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(_HELPER, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
