"""Ray as a cluster: pilots are detached actors named by their tokens, which outlive the driver that made them."""

import os
import time
from collections.abc import Mapping, Sequence

from ablate.core.text import duration
from ablate.execution.executors.base import OFFLINE, environment, python
from ablate.execution.pilots.cluster import Table
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.ray_cluster.line import RayLine
from ablate.execution.ray_cluster.options import RayOptions
from ablate.execution.ray_cluster.statuses import GROWS, Census, living, offers, problem_of, statuses

HANDED_OVER = ("ABLATE_", "HF_", "XDG_CACHE_", "PYTHONPATH", "TRANSFORMERS_", "TORCH_", "PYTORCH_", "GLIBC_", "JE_")
"""Variables of the driver's, by their beginnings, that say where caches lie and how stages compute; all others are the
node's own. No token is among them: Ray keeps what an actor was made with."""
RETURN_S = 600.0
"""So long a job waits for a node such as the cluster had: a machine starts anew, or a head, and its nodes join it."""


class RayCluster:
    """See `Cluster`."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._met_at: float | None = None
        """When a node was last there that can have a job, by time.monotonic()."""
        self._line = RayLine(options.address, options.namespace, options.answer_s)

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        options = self._options
        asked = {name: amount for name, amount in options.asked.items() if name not in ("GPU", "CPU", "memory")}
        sizes = {"num_gpus": options.num_gpus, "num_cpus": options.num_cpus, "memory": options.asked.get("memory")}
        self._line.ask(
            "submit",
            jobs=[_record(job) for job in jobs],
            options=sizes | {"resources": asked},
            settings=handed_over(),
        )

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        asked_at = time.monotonic()
        census = self._census(jobs)
        if problem_of(living(census.nodes), self._options.asked) is None:
            self._met_at = asked_at
        return Table(asked_at, statuses(census, self._options.asked, self._hope(asked_at)))

    def _hope(self, now: float) -> str:
        """-> why a node may still come that can have a job; empty where none will."""
        if self._options.autoscaling:
            return GROWS
        if self._met_at is None or now - self._met_at > RETURN_S:
            return ""
        return f"it waits up to {duration(RETURN_S)} for one to come back"

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        self._line.ask("cancel", tokens=[job.token for job in jobs])

    def offers(self) -> tuple[str, str | None]:
        """-> what nodes the cluster has, and why none of them can have a job, or None. Raises Unreachable."""
        nodes, asked = living(self._census([]).nodes), self._options.asked
        return offers(nodes, asked), problem_of(nodes, asked)

    def _census(self, jobs: Sequence[PilotJob]) -> Census:
        return Census.model_validate(self._line.ask("census", tokens=[job.token for job in jobs]))


def handed_over(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """-> what a pilot's environment has of the driver's."""
    slot = {"device": "cuda", "gpu": None, "threads": 1}
    scrubbed = environment({"slot": slot, "is_online": False})
    left_out = (*OFFLINE, "HF_TOKEN_PATH")  # said anew to every stage that is to have no network
    return {name: text for name, text in scrubbed.items() if name.startswith(HANDED_OVER) and name not in left_out}


def _record(job: PilotJob) -> dict[str, object]:
    folder = str(job.path.absolute())
    return {
        "token": job.token,
        "folder": folder,
        "command": python("ablate.execution.ray_cluster.keeper", folder),
        "settings": {"ABLATE_JOB_ID": job.token},
    }
