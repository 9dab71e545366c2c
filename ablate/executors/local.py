"""Workers on this machine: one slot a card, or one a core where there is no card."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ablate import process
from ablate.errors import AblateError
from ablate.executors.base import EXECUTORS, Placing, Slot, Work, supervisor_of
from ablate.executors.launch import Warm, start_fresh
from ablate.process import Contact, Identity
from ablate.store import Attempt

NUM_ONLINE = 4
NUM_LIGHT = 4
MAX_THREADS = 8
BYTES_PER_JOB = 4 << 30
"""Memory that must be free for one more stage at once, where there is no card; --jobs says otherwise."""
START_S = 30.0
"""For a worker of a living driver to come up."""
CLAIM_S = 2.0
"""For a driver to write the order of an attempt that it has claimed."""


class Local:
    """Supervisors as processes of this machine, each in a session of its own, so that they outlive the driver."""

    def __init__(self, placing: Placing) -> None:
        self._slots = _slots(placing)
        self._is_warm = placing.is_warm and os.environ.get("ABLATE_START") != "fresh"
        self._warm: Warm | None = None
        self._fresh: dict[Path, subprocess.Popen[bytes]] = {}
        self._seen_at: dict[Path, float] = {}

    def slots(self) -> Sequence[Slot]:
        return self._slots

    def submit(self, attempt: Attempt) -> None:
        self._seen_at[attempt.path] = time.monotonic()
        if self._is_warm and self._warm is None:
            self._warm = Warm()
        if self._warm and self._warm.is_usable and not (attempt.order or {})["is_online"]:
            self._warm.ask(attempt)
        else:
            self._fresh[attempt.path] = start_fresh(attempt)

    def poll(self, attempt: Attempt) -> Contact:
        self._pump()
        fresh = self._fresh.get(attempt.path)
        if fresh and fresh.poll() is not None:
            return "gone"
        supervisor = supervisor_of(attempt)
        if supervisor:
            return process.contact(supervisor)
        if fresh:
            return "alive"
        return "alive" if attempt.exit is None and self._is_expected(attempt) else "gone"

    def end(self, attempt: Attempt) -> None:
        supervisor = supervisor_of(attempt)
        if supervisor:
            process.kill_session(supervisor)
        elif attempt.path in self._fresh:
            self._fresh[attempt.path].kill()

    def close(self) -> None:
        if self._warm:
            self._warm.close()
            self._warm = None

    def _pump(self) -> None:
        for attempt in self._warm.refused() if self._warm else ():
            self._seen_at[attempt.path] = time.monotonic()
            self._fresh[attempt.path] = start_fresh(attempt)

    def _is_expected(self, attempt: Attempt) -> bool:
        """Whether a worker that has not signed yet may still come."""
        if self._warm and self._warm.is_asked(attempt):
            return True
        order = attempt.order
        if order and process.contact(Identity.model_validate(order["driver"])) == "gone":
            return False  # should it come all the same, it finds that it is over
        first = self._seen_at.setdefault(attempt.path, time.monotonic())
        return time.monotonic() - first < (START_S if order else CLAIM_S)


EXECUTORS.register("local")(Local)


def _slots(placing: Placing) -> list[Slot]:
    cards = _cards(placing.gpus)
    num_cores = _num_cores()
    online = [Slot(f"online {n}", frozenset({"online"})) for n in range(NUM_ONLINE)]
    if not cards:
        either: frozenset[Work] = frozenset({"light", "heavy"})
        num_fit = max(1, psutil.virtual_memory().available // BYTES_PER_JOB)
        return [*online, *(Slot(f"cpu {n}", either) for n in range(placing.num_jobs or min(num_cores, num_fit)))]
    threads = max(1, min(MAX_THREADS, num_cores // len(cards)))
    light = [Slot(f"cpu {n}", frozenset({"light"})) for n in range(min(NUM_LIGHT, num_cores))]
    heavy = [Slot(f"gpu {n}", frozenset({"heavy"}), "cuda", card, threads) for n, card in enumerate(cards)]
    return [*online, *light, *heavy]


def _num_cores() -> int:
    """Cores that this process may use: a container's quota counts."""
    num_cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return num_cores
    return num_cores if quota == "max" else max(1, min(num_cores, int(quota) // int(period)))


def _cards(chosen: tuple[str, ...] | None) -> list[str]:
    """-> UUIDs of the cards to use: all, those that CUDA_VISIBLE_DEVICES leaves, or those chosen of them.

    Raises AblateError for a chosen one that is not there.
    """
    known = dict(enumerate(_visible()))
    if chosen is None:
        return list(known.values())
    by_name = {str(index): card for index, card in known.items()} | {card: card for card in known.values()}
    missing = [name for name in chosen if name not in by_name]
    if missing:
        shown = ", ".join(f"{index} ({card})" for index, card in known.items()) or "none"
        raise AblateError(f"--gpus names {', '.join(missing)}, but the cards visible here are: {shown}")
    return [by_name[name] for name in dict.fromkeys(chosen)]


def _visible() -> list[str]:
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limit is None:
        return list(_installed().values())
    names = [name.strip() for name in limit.split(",") if name.strip()]
    if not names or "-1" in names:
        return []
    installed = _installed()
    return [installed.get(name, name) for name in names] if installed else []


def _installed() -> dict[str, str]:
    """-> index: UUID of every card, as the driver tells; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.split(",") for line in told.splitlines() if "," in line)
    return {index.strip(): uuid.strip() for index, uuid in rows}
