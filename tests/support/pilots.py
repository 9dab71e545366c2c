"""Executors on the example cluster whose jobs are pilots, and what tests ask them for."""

from pathlib import Path

from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob, jobs_in
from ablate.execution.remote_example.cluster import ExampleCluster
from ablate.execution.remote_example.executor import NAME
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from support.executors import QUICK
from support.toys import ordered


def options(**changed: object) -> PilotOptions:
    return PilotOptions.model_validate(QUICK | changed)


def executor_of(cluster: Path, **changed: object) -> PilotExecutor:
    return PilotExecutor(NAME, Placing(uses_fork_server=False), ExampleCluster(cluster), options(**changed))


def asked_for(root: Path, stage: Stage, **changed: object) -> Attempt:
    return ordered(root, stage, executor=NAME, **changed)


def jobs_of(root: Path) -> list[PilotJob]:
    return list(jobs_in(root / "runs/jobs/toys"))
