"""What a result keeps of where it was made: for a reader, who ran what where; nothing is computed from it."""

import os
from collections.abc import Mapping
from typing import Any

from ablate.core.values import Json
from ablate.execution.profiles import profile_in

JOB = "ABLATE_CLUSTER_JOB"
"""In the environment of what a pilot starts: its job, as the cluster's own commands call it."""


def place_record(request: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Json]:
    """-> executor, profile and slot of an attempt, and the cluster's job that it runs in, if it is one.

    `cards`: the names of several places that are one for a stage; `job_cards`: how many it used of its job's.
    """
    profile = profile_in(request)
    record: dict[str, Json] = {"executor": profile.kind, "profile": profile.name, "slot": request["slot"]["name"]}
    if request["slot"]["shares"] < request["slot"]["num_shares"]:
        record["card_share"] = request["slot"]["shares"] / request["slot"]["num_shares"]
    if len(parts := request["slot"].get("parts", ())) > 1:
        record["cards"] = list(parts)
    if (num_cards := request["slot"].get("num_gpus", 1)) > 1:
        record["job_cards"] = num_cards
    job = environment.get(JOB)
    return record | ({"job": job} if job else {})
