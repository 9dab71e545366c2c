"""How fast the disk under a root is: measured once, kept in runs/checks/disk.json, and measured again once that is old.

A teacher's answers are kept only where the disk is fast enough for it. A study keeps what was measured for it in its
own record, and goes by that for good, so that it comes to the same results however often it is interrupted.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, plain_files, temporary_files
from ablate.store.store import Store

NAME = "disk.json"
FIELDS = ("write", "read", "measured")
OLD_S = 30 * 24 * 3600.0
PIECE_BYTES = 1 << 24
NUM_PIECES = 6
MOST_S = 1.0
"""For writing as for reading: a slower disk is measured by fewer pieces."""


class DiskSpeed(NamedTuple):
    """Bytes a second, one after another."""

    write: float
    """Until they are on the disk."""
    read: float
    """From the disk, as far as the system forgets what it has just written."""


class Speeds(NamedTuple):
    """What a study weighs keeping a teacher's answers by: fixed with its first run."""

    write: float
    read: float
    flops_per_s: float
    """Of what its stages run on."""
    device: str
    """Which that is, for a reader."""
    begun: tuple[str, ...] = ()
    """Keys of what keeps answers and had been begun before these were known: its choice stays what it was."""


def disk_speed(store: Store) -> DiskSpeed:
    """-> of the disk of a root, measured now unless it was in the last 30 days: in two seconds at most."""
    path = store.checks / NAME
    record = disk.read_sealed(path, FIELDS)
    if record is None or not 0 <= time.time() - record["measured"] < OLD_S:
        disk.make_folder(store.checks)
        record = {**measured(store.checks)._asdict(), "measured": time.time()}
        disk.write_sealed(path, record)
    return DiskSpeed(record["write"], record["read"])


def measured(folder: Path) -> DiskSpeed:
    """-> how fast some 100 MB are written there and read again; nothing of them is left."""
    piece = os.urandom(PIECE_BYTES)  # some disks make little of zeros
    paths: list[Path] = []
    with contextlib.ExitStack() as files:
        begun = time.monotonic()
        while not paths or (len(paths) < NUM_PIECES and time.monotonic() < begun + MOST_S):
            paths.append(files.enter_context(temporary_files.beside(folder / f"speed-{len(paths)}")))
            disk.write_pieces(paths[-1], [piece], len(piece))
        write_s = time.monotonic() - begun
        read = _read_speed(paths)
        for path in paths:
            temporary_files.unlink(path)
    return DiskSpeed(len(paths) * PIECE_BYTES / write_s, read)


def _read_speed(paths: Sequence[Path]) -> float:
    """-> what the disk gives, not the memory: the system is asked to forget what it has just written, and may not."""
    for path in paths:
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun, num_bytes = time.monotonic(), 0
    for path in paths:
        if time.monotonic() < begun + MOST_S:
            num_bytes += len(plain_files.read_bytes(path))
    return num_bytes / max(time.monotonic() - begun, 1e-6)
