"""What `ablate doctor` tells of a Slurm: its version, whether its daemon answers, whether it would take such a job."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ablate.core.doctor_line import Line
from ablate.execution.pilots.cluster import Refused
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.slurm.script import script

NO_JOB = PilotJob(Path("/tmp/ablate-doctor/runs/jobs/doctor/1"))
"""Of which no file is made: Slurm is asked whether it would take it."""


class Ask(Protocol):
    """Words of a command, and what it reads -> what it prints. Raises Refused, Unreachable."""

    def __call__(self, words: Sequence[str], text: str = "") -> str: ...


def check(ask: Ask, options: SlurmOptions) -> Iterator[Line]:
    """-> one line a thing. Raises Unreachable."""
    try:
        version = ask(["sbatch", "--version"]).strip()
    except Refused as error:
        yield Line("problem", "sbatch", str(error), "a login node of the cluster, with its commands in PATH")
        return
    yield Line("ok", "sbatch", version)
    yield Line("ok", "slurmctld", " ".join(ask(["scontrol", "ping"]).split()))
    try:
        ask(["sbatch", "--test-only"], script([NO_JOB], options, sys.executable))
    except Refused as error:
        advice = "`sinfo` lists partitions, `sacctmgr show associations user=$USER` accounts and qos"
        yield Line("problem", "such a job", str(error), advice)
    else:
        yield Line("ok", "such a job", "Slurm would take it (sbatch --test-only)")
