"""Stages as pilot jobs of Slurm: kind `slurm`, spoken to by sbatch, squeue and scancel from a login node."""

from ablate.execution.executors.base import EXECUTORS
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.slurm.cluster import Slurm
from ablate.execution.slurm.options import SlurmOptions
from ablate.machine.slots import Placing

NAME = "slurm"


@EXECUTORS.register(NAME)
class SlurmExecutor(PilotExecutor):
    """Workers as entries of jobs of Slurm's."""

    options = SlurmOptions

    def __init__(self, placing: Placing) -> None:
        options = SlurmOptions.model_validate(dict(placing.options))
        super().__init__(NAME, placing, Slurm(options), options)
