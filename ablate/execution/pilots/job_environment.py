"""What a cluster says to a job by its environment, as far as a pilot wants to know."""

import contextlib
import os
from collections.abc import Mapping


def cluster_id(environment: Mapping[str, str] = os.environ) -> str:
    """-> the job's name in the cluster's own commands; empty where it does not say."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environment.get("SLURM_JOB_ID", "") or environment.get("ABLATE_JOB_ID", "")


def num_restarts(environment: Mapping[str, str] = os.environ) -> int:
    """-> how often the cluster has begun the job anew."""
    with contextlib.suppress(ValueError):
        return int(environment.get("SLURM_RESTART_COUNT") or environment.get("ABLATE_RESTART_COUNT") or 0)
    return 0


def ends_at(environment: Mapping[str, str] = os.environ) -> float | None:
    """-> when the job's time is over, by time.time(); None where the cluster does not say."""
    with contextlib.suppress(ValueError):
        return float(environment.get("SLURM_JOB_END_TIME", ""))
    return None
