"""A stage kind that looks at the machine it runs on: what `ablate doctor --executor` sends to a node."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Annotated

import psutil

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import IDENTITY, Frozen, Int, Json
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind

LIBRARIES = ("ablate", "torch", "transformers", "tokenizers", "datasets", "lm_eval")


class MachineCheckSettings(Frozen):
    """Which of several looks at once."""

    number: Annotated[Int, IDENTITY] = 0


class MachineCheck(Kind[MachineCheckSettings]):
    """Writes down what a machine has; no study has such a stage."""

    Settings = MachineCheckSettings

    def run(self, job: Job) -> None:
        disk.write_json(job.out / "machine.json", machine() | {"device": job.device_name})

    def check(self, folder: Path) -> None:
        if disk.read_json(folder / "out/machine.json") is None:
            raise StageError("the look at the machine left no result")

    def glance(self, folder: Path) -> None:
        self.check(folder)


def machine() -> dict[str, Json]:
    """-> what results may depend on, and where stages find models: of the machine that this process runs on."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
        "memory_bytes": psutil.virtual_memory().total,
        "cores": len(os.sched_getaffinity(0)),
        "hub_cache": _folder(_hub_cache()),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(path: Path) -> list[Json]:
    """-> its path, and the number that its file system gives it, which is the same on every machine that has it."""
    try:
        return [str(path.resolve()), path.stat().st_ino]
    except OSError:
        return [str(path), None]


KINDS.register("machine_check")(MachineCheck())
