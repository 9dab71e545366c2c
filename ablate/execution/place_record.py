"""What a result keeps of where it was made: for a reader, who ran what where; nothing is computed from it."""

import os
from collections.abc import Mapping
from typing import Any

from ablate.core.values import Json
from ablate.execution.profiles import profile_in


def place_record(request: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Json]:
    """-> executor, profile and slot of an attempt, and the cluster's job that it runs in, if it is one."""
    profile = profile_in(request)
    record: dict[str, Json] = {"executor": profile.kind, "profile": profile.name, "slot": request["slot"]["name"]}
    job = job_id(environment)
    return record | ({"job": job} if job and profile.record() else {})


def job_id(environment: Mapping[str, str]) -> str:
    """-> the job that a process is part of, as its cluster's own commands call it; empty outside one."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environment.get("SLURM_JOB_ID", "") or environment.get("ABLATE_JOB_ID", "")
