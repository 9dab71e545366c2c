"""A stage kind that looks at the machine it runs on: what `ablate doctor --executor` sends to a node."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import psutil

from ablate.core import disk, shared_folders
from ablate.core.errors import StageError
from ablate.core.values import IDENTITY, RUNTIME, Frozen, Int, Json
from ablate.store import folder_probe
from ablate.store.folder_probe import Delay, Findings, NoAnswer
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind

PARTNER_S = 30.0
"""For another node to be there."""
LIBRARIES = ("ablate", "torch", "transformers", "tokenizers", "datasets", "lm_eval")


class MachineCheckSettings(Frozen):
    """Which of several looks at once."""

    number: Annotated[Int, IDENTITY] = 0
    shared: Annotated[str | None, RUNTIME] = None
    """A folder in which it tries, with whoever sent it, what a shared file system does, and then with another node.
    None: there is nobody else."""


class MachineCheck(Kind[MachineCheckSettings]):
    """Writes down what a machine has; no study has such a stage."""

    Settings = MachineCheckSettings

    def run(self, job: Job) -> None:
        settings: MachineCheckSettings = job.settings
        between = _tried(Path(settings.shared), settings.number) if settings.shared else {}
        seen = machine() | {"device": job.device_name, "card_bytes": _card_bytes() if job.device == "cuda" else []}
        disk.write_json(job.out / "machine.json", seen | {"between": between})

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


def _card_bytes() -> list[Json]:
    """-> memory of each card that the job sees."""
    import torch

    return [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]


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


# a folder that several machines see


def with_sender(shared: Path, number: int) -> Path:
    """-> where a node and whoever sent the stage meet."""
    return shared / f"sender-{number}"


def _tried(shared: Path, number: int) -> dict[str, Json]:
    """-> host of another node: what the two have found out between them."""
    host = platform.node()
    disk.write_volatile(shared / f"host-{number}", disk.json_text(host))
    folder_probe.answer(with_sender(shared, number))
    partner = shared_folders.awaited(lambda: disk.read_json(shared / f"host-{1 - number}"), shared, PARTNER_S)
    if partner in (None, host):
        return {}
    if number:
        folder_probe.answer(shared / "nodes")
        return {}
    try:
        return {str(partner): _record(folder_probe.ask(shared / "nodes"))}
    except NoAnswer as error:
        return {str(partner): str(error)}


def _record(findings: Findings) -> dict[str, Json]:
    delays: Json = {way: list(delay) for way, delay in findings.delays.items()}
    return {**findings._asdict(), "delays": delays}


def findings_in(record: Mapping[str, Any]) -> Findings:
    """-> what two nodes have found out, as the result of a stage says it."""
    delays = {way: Delay(*delay) for way, delay in record["delays"].items()}
    return Findings(**{**record, "delays": delays})


KINDS.register("machine_check")(MachineCheck())
