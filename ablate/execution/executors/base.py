"""What an executor is: it places workers in slots, tells whether they are still there, and ends them."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ablate.core import package, plain_files, processes, secrets
from ablate.core.doctor_line import Line
from ablate.core.entry_points import offers
from ablate.core.failures import Ending
from ablate.core.processes import Contact
from ablate.core.registry import Registry
from ablate.machine.slots import Placing, Slot, Taken
from ablate.store import node_copies
from ablate.store.attempt import Attempt

LOCAL = "local"
"""The executor of every attempt whose request names none."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")
"""Switches of the libraries."""
ALLOCATOR = frozenset({"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"})
"""Variables by which torch is told how to keep a card's memory."""
_OF_THE_NETWORK = re.compile(r"(^|_)CREDENTIALS$|^(ALL|FTP|HTTPS?|SOCKS)_PROXY$", re.IGNORECASE)
"""Names of what a stage without a network has no use for, beside tokens and passwords."""


class Executor(Protocol):
    """Places workers. It keeps no truth: what an attempt's folder says counts, so any driver can go on with it.

    Attempts are its handles. `status` and `stop` make one too, in a process without a driver, for `poll`, `end` and
    `describe` alone: nothing may be started or looked up before it is asked for, and what must be remembered between
    two questions lies in the attempt's folder. A worker is asked to stop by `Attempt.stop_request`, which every worker
    looks for itself. `ablate.execution.remote_example` is one to copy.
    """

    @property
    def name(self) -> str:
        """As in EXECUTORS: an attempt's request says it, so that any process knows whom to ask."""

    def slots(self) -> Sequence[Slot]:
        """Every place, free or not. Raises AblateError for a wish of the user's that cannot be met."""

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """Name of a slot -> what others than these attempts hold of it now, and how long a stage waits for its job.

        A slot in which nothing can be begun at the moment (the cluster is out of reach) is held whole.
        """

    def begin(self, jobs: Path) -> None:
        """A driver begins. `jobs`: the folder for what its study has on a cluster, by which another driver goes on."""

    def submit(self, attempt: Attempt) -> None:
        """Has a worker started on an attempt whose request is written. Returns at once."""

    def poll(self, attempt: Attempt) -> Contact:
        """Whether an attempt's worker is there or may still come, whichever driver's executor it was submitted to.

        `unknown` while that cannot be told; `gone` is final.
        """

    def end(self, attempt: Attempt) -> None:
        """Kills the worker and all it started, without a last word; also what a worker that is gone left at work.

        May be called again, and for a worker that has not come yet.
        """

    def ending(self, attempt: Attempt) -> Ending | None:
        """-> why a worker that is gone went without a last word, where that is known; None: killed, as any other."""

    def describe(self, attempt: Attempt) -> str:
        """-> who works on an attempt, for a message: pid 7 on host."""

    def look(self, num_waiting: int) -> Sequence[str]:
        """Once a turn of the driver: sends what was gathered since the last. -> what a reader should know, each once.

        `num_waiting`: stages of the run that are not begun; with none, what waits for work may go.
        """

    def close(self) -> None:
        """Ends what serves this driver alone; workers live on."""


class CheckedExecutor(Executor, Protocol):
    """One that `ablate doctor --executor` asks for more than a stage of its own."""

    def check(self) -> Iterable[Line]:
        """-> whether what it needs is here and answers, and whether what its options name exists. Starts nothing."""


EXECUTORS: Registry[Callable[[Placing], Executor]] = Registry(
    "executor", "ablate.execution.executors", "ablate.executors", further=("ablate.execution.clusters",)
)
"""Makers. A maker's attribute `options`, a pydantic model, says what a profile of its kind may say beside `kind`:
`Placing.options` have been validated by it, and are as they were written. Without one a profile has no options."""


def supervisor_of(attempt: Attempt) -> processes.Identity | None:
    """-> who works on an attempt, or None when no worker has come yet, or its name is no longer what was written."""
    try:
        return processes.Identity.model_validate_json(plain_files.read_bytes(attempt.worker))
    except (FileNotFoundError, ValueError):
        return None


def environment(request: Mapping[str, Any]) -> dict[str, str]:
    """-> the environment of a stage's processes: its card and threads; the network, and the token, only when online."""
    slot = request["slot"]
    threads = str(slot["threads"])
    settings = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a card must not touch it before a fork
        "TOKENIZERS_PARALLELISM": "false",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator: no thread, so that forking is safe
        # the C library keeps what a step frees for the next one: 4 % of a step on a CPU
        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824",
        "PYTHONPATH": python_path(),
    }
    settings |= _card(slot) | _card_memory() | node_copies.settings((request.get("profile") or {}).get("options") or {})
    return settings if request["is_online"] else offline(settings)


def _card(slot: Mapping[str, Any]) -> dict[str, str]:
    """-> what says which card is used; none where a cluster assigns it, and has said so to the job itself."""
    is_assigned = slot["device"] == "cuda" and not slot["gpu"]
    return {} if is_assigned else {"CUDA_VISIBLE_DEVICES": ",".join(slot.get("gpus") or (slot["gpu"] or "",))}


def _card_memory() -> dict[str, str]:
    """-> how torch keeps a card's memory: in segments that grow, as every micro-batch has another shape.

    None where the user says anything of it.
    """
    return {} if ALLOCATOR & os.environ.keys() else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def offline(settings: Mapping[str, str]) -> dict[str, str]:
    """-> an environment in which nothing reaches the network, and no token is known, nor a password in a URL."""
    kept = (name for name in settings if not secrets.is_named_so(name) and not _OF_THE_NETWORK.search(name))
    own = {name: secrets.without_userinfo(settings[name]) for name in kept}
    return own | dict.fromkeys(OFFLINE, "1") | {"HF_TOKEN_PATH": os.devnull}


def python(module: str, *arguments: str) -> list[str]:
    """-> the command that runs a module of this package, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_path() -> str:
    """Workers run the code this process runs, ours and other packages', also where that is not installed."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    losses = (offer.folder for offer in offers("ablate.losses"))  # what stages run of other packages
    places = [*losses, str(package.FOLDER.parent)]
    not_installed = [place for place in places if Path(place).name not in ("site-packages", "dist-packages")]
    return os.pathsep.join(dict.fromkeys(filter(None, [*known, *not_installed])))
