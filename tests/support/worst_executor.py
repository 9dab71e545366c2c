"""The executor of the worst cluster: pilots like any other cluster's, forked so that they are there at once."""

import os
from pathlib import Path
from typing import NoReturn

from ablate.execution.executors import local
from ablate.execution.executors.base import EXECUTORS, Executor
from ablate.execution.pilots import pilot
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt
from support.executors import QuickForkServer
from support.worst_cluster import WorstCluster

NAME = "worst"
CLUSTER, SEED = "ABLATE_TEST_WORST", "ABLATE_TEST_WORST_SEED"
"""Folder of the cluster, and what its lies are drawn by, for every process of the test."""
OPTIONS = PilotOptions(
    max_jobs=3,
    idle_s=20.0,
    margin_s=0.0,
    look_s=0.2,
    submissions_per_minute=600,
    missing_s=2.0,
    device="cpu",
)


class _WithQuickFork(local.Local):
    """Workers of a pilot, forked by a server that is there at once."""

    def submit(self, attempt: Attempt) -> None:
        self._fork_server = self._fork_server or QuickForkServer()
        super().submit(attempt)


@EXECUTORS.register(NAME)
def worst(placing: Placing) -> Executor:
    return PilotExecutor(NAME, placing, WorstCluster(Path(os.environ[CLUSTER]), int(os.environ[SEED])), OPTIONS)


def cluster_executor() -> Executor:
    """-> of a driver."""
    return worst(Placing(profile=NAME))


def run_pilot(path: Path, job_id: str, num_restarts: int) -> NoReturn:
    """In a process of its own, on a node."""
    os.environ |= {"ABLATE_JOB_ID": job_id, "ABLATE_RESTART_COUNT": str(num_restarts)}
    pilot.Local = _WithQuickFork
    pilot.main([str(path)])
    os._exit(0)
