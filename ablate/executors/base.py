"""What an executor is: it places workers in slots and tells whether they are still there. Attempts are its handles."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from ablate import process
from ablate.process import Contact
from ablate.registry import Registry
from ablate.store import Attempt

Work: TypeAlias = Literal["online", "light", "heavy"]
SHARES = 4
"""Of a card: so many small stages at most are on it at once."""
MARGIN = 1.25
"""Room beside an estimate where others share the card."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


@dataclass(frozen=True)
class Slot:
    """A place for one stage at a time, or for as many as its shares allow."""

    name: str
    takes: frozenset[Work]
    device: Literal["cpu", "cuda"] = "cpu"
    gpu: str | None = None
    """UUID of the card, as in CUDA_VISIBLE_DEVICES."""
    threads: int = 1
    model: str | None = None
    """Name of the card or the processor."""
    num_shares: int = 1
    memory_bytes: int | None = None
    """None: not known, and then a stage takes all of it."""

    def holds(self, least_bytes: int) -> bool:
        """Whether a stage that cannot do with less fits in here."""
        return self.memory_bytes is None or least_bytes <= self.memory_bytes

    def shares_of(self, memory_bytes: int | None) -> int:
        """-> how many shares a stage of such an estimate takes; all where it is not known."""
        if memory_bytes is None or self.memory_bytes is None:
            return self.num_shares
        return min(self.num_shares, math.ceil(memory_bytes * MARGIN * self.num_shares / self.memory_bytes))

    def record(self, shares: int | None = None) -> dict[str, Any]:
        """For attempt.json; `shares`: those that the attempt holds, all unless said."""
        return asdict(self) | {"takes": sorted(self.takes), "shares": shares or self.num_shares}


@dataclass(frozen=True)
class Placing:
    """What the user said about where stages run."""

    gpus: tuple[str, ...] | None = None
    """Indices or UUIDs; every visible card unless said."""
    num_jobs: int | None = None
    """Stages at once where there is no card; one a core unless said."""
    is_warm: bool = True
    """Start workers from a process that has imported what they need."""


class Taken(NamedTuple):
    """What others hold of a slot."""

    shares: int
    why: str
    """Which card, and who: pid, user and memory."""


class Executor(Protocol):
    """Places workers. It keeps no truth: what an attempt's folder says counts, so any driver can go on with it."""

    def slots(self) -> Sequence[Slot]:
        """Every place, free or not."""

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """Name of a slot -> what others than these attempts hold of it now."""

    def submit(self, attempt: Attempt) -> None:
        """Has a worker started on an attempt whose order is written. Returns at once."""

    def poll(self, attempt: Attempt) -> Contact:
        """Whether an attempt's worker is there: started by this executor, or by another driver's."""

    def end(self, attempt: Attempt) -> None:
        """Kills the worker and all it started, without a last word."""

    def close(self) -> None:
        """Ends what serves this driver alone; workers live on."""


EXECUTORS: Registry[Callable[[Placing], Executor]] = Registry("executor", "ablate.executors")


def supervisor_of(attempt: Attempt) -> process.Identity | None:
    """-> who works on an attempt, or None when no worker has come yet, or its name is no longer what was written."""
    try:
        return process.Identity.model_validate_json(attempt.worker.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def environment(order: Mapping[str, Any]) -> dict[str, str]:
    """-> the environment of a stage's processes: its card and threads; the network, and the token, only when online."""
    slot = order["slot"]
    threads = str(slot["threads"])
    settings = os.environ | {
        "CUDA_VISIBLE_DEVICES": slot["gpu"] or "",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a card must not touch it before a fork
        "TOKENIZERS_PARALLELISM": "false",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator: no thread, so that forking is safe
        # the C library keeps what a step frees for the next one: 4 % of a step on a CPU
        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824",
        "PYTHONPATH": _python_path(),
    }
    return settings if order["is_online"] else offline(settings)


def offline(settings: Mapping[str, str]) -> dict[str, str]:
    """-> an environment in which nothing reaches the network, and no token is known."""
    kept = {name: value for name, value in settings.items() if name not in TOKENS}
    return kept | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def python(module: str, *arguments: str) -> list[str]:
    """-> the command that runs a module of this package, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _python_path() -> str:
    """Workers run the code this process runs, also where ablate is not installed."""
    here = Path(__file__).parents[2]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, [*known, "" if here.name == "site-packages" else str(here)])))
