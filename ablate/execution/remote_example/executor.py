"""An executor for another machine, to be read and copied: its cluster answers late, twice, from memory, or not at all.

It takes for granted that the cluster's nodes see the same runs/ at the same path, and that a job can be found by a
name that was given to it. So it has nothing to remember: any process can ask for the job of any attempt.

To make one's own: copy this module into `ablate/execution/executors`, put the calls of the cluster in question in the
place of `Cluster`, and end it with `EXECUTORS.register(NAME)(...)`, a callable that takes a `Placing`. The same tests
are then run on it: `tests/contracts/test_executors.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ablate.core.errors import AblateError
from ablate.core.processes import Contact
from ablate.core.values import digest
from ablate.execution.remote_example.cluster import LISTED_S, Cluster, Job, Unreachable
from ablate.machine.slots import Placing, Slot, Taken, Work
from ablate.store.attempt import Attempt

NAME = "remote_example"
NUM_JOBS = 2
"""At once, where the user does not say."""
ANY_WORK: frozenset[Work] = frozenset({"online", "light", "heavy"})


class RemoteExample:
    """Workers as jobs of a cluster, found by the name of their attempt."""

    name = NAME

    def __init__(self, placing: Placing, cluster: Cluster) -> None:
        self._placing, self._cluster = placing, cluster
        self._unsent: list[Callable[[], None]] = []
        """What was to be sent while the cluster could not be reached, in order."""
        self._unlisted_since: dict[Path, float] = {}
        """When a job was first looked for and not seen, by the cluster's clock: it has no other that counts."""

    def slots(self) -> Sequence[Slot]:
        if self._placing.gpus:
            raise AblateError("--gpus names cards of this machine, and workers of this executor are not on it")
        return [Slot(f"job {number}", ANY_WORK) for number in range(self._placing.num_jobs or NUM_JOBS)]

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """What others hold is for the cluster's queue to know."""
        return {}

    def submit(self, attempt: Attempt) -> None:
        self._send(partial(self._cluster.submit, job_name(attempt), attempt.path.resolve()))

    def poll(self, attempt: Attempt) -> Contact:
        try:
            self._send_unsent()
            table = self._cluster.table()
        except Unreachable:
            return "unknown"
        jobs = table.jobs_named(job_name(attempt))
        if jobs:
            return "gone" if all(job.is_over for job in jobs) else "alive"
        # never sent, by a driver that was killed; or not in the table yet, which may be an old one besides
        since = self._unlisted_since.setdefault(attempt.path, table.as_of)
        return "alive" if table.as_of - since <= LISTED_S else "gone"

    def end(self, attempt: Attempt) -> None:
        """A job that is not there yet, or not any more, is none to cancel: the cluster says nothing of it."""
        self._send(partial(self._cluster.cancel, job_name(attempt)))

    def describe(self, attempt: Attempt) -> str:
        try:
            jobs = self._cluster.table().jobs_named(job_name(attempt))
        except Unreachable:
            jobs = []
        return " and ".join(map(_described, jobs)) or f"job {job_name(attempt)}, which the cluster does not list"

    def close(self) -> None:
        """Nothing serves one driver alone."""

    def _send(self, message: Callable[[], None]) -> None:
        self._unsent.append(message)
        try:
            self._send_unsent()
        except Unreachable:
            return  # the next poll sends it

    def _send_unsent(self) -> None:
        while self._unsent:
            self._unsent[0]()
            del self._unsent[0]


def job_name(attempt: Attempt) -> str:
    """-> a name that no other attempt has, whatever its root."""
    return f"ablate-{attempt.key12}-{attempt.number}-{digest(str(attempt.path.resolve()))[:8]}"


def _described(job: Job) -> str:
    return f"job {job.number} on {job.node}"
