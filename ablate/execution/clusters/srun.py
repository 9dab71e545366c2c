"""Stages on the nodes of the allocation that `run` is in: kind `srun`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.core.errors import AblateError
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.pilots.cluster import Refused, Unreachable
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.slurm import allocation, commands
from ablate.execution.slurm.allocation import Allocation
from ablate.execution.slurm.steps import Srun, SrunOptions
from ablate.machine.slots import Placing, Slot

NAME = "srun"
ASK_S = 30.0
LOOK_S = 1.0
"""Between two looks: an allocation's steps are few."""


@EXECUTORS.register(NAME)
class SrunExecutor(PilotExecutor):
    """Workers as entries of steps of an allocation."""

    options = SrunOptions

    def __init__(self, placing: Placing) -> None:
        self._here = here = _allocation(os.environ)
        options = SrunOptions.model_validate(_shares(here, placing.options) | dict(placing.options))
        super().__init__(NAME, placing, Srun(options, here), options)

    def slots(self) -> Sequence[Slot]:
        """Raises AblateError outside of an allocation, where workers can be asked for and none placed."""
        if self._here is None:
            raise AblateError(
                "kind srun wants an allocation of Slurm's: run it in a shell of salloc's, or in a script of sbatch's;"
                " `--executor slurm` has jobs of its own"
            )
        return super().slots()


def _allocation(environ: Mapping[str, str]) -> Allocation | None:
    """-> the one that this process runs in; asked once."""
    job = allocation.job_of(environ)
    if not job:
        return None
    try:
        return allocation.read(job, commands.answer(["scontrol", "--details", "show", "job", job], timeout_s=ASK_S))
    except (Unreachable, Refused):
        return Allocation(job)


def _shares(here: Allocation | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """-> what a profile need not say: how many pilots the allocation has room for, and what each has."""
    if here is None:
        return {}
    cards = given.get("cards", 1)
    if not isinstance(cards, int):
        return {}  # told of the options themselves
    cpus = given.get("cpus") or here.cpus_of(cards)
    device = "cuda" if here.num_cards else "cpu"
    return {"max_jobs": here.num_pilots(cpus, cards), "cpus": cpus, "threads": cpus, "device": device, "look_s": LOOK_S}
