"""An executor for another machine, to be read and copied: its cluster answers late, twice, from memory, or not at all.

It takes for granted that the cluster's nodes see the same runs/ at the same path, and that a job can be found by a
name that was given to it. What it must remember lies in the attempt's folder: any process can ask for the job of any
attempt, and each question may come to an executor that was made for it alone.

To make one's own: copy this module into `ablate/execution/executors`, put the calls of the cluster in question in the
place of `Cluster`, and end it with `EXECUTORS.register(NAME)(...)`, a callable that takes a `Placing`. The same tests
are then run on it: `tests/contracts/test_executors.py`.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.failures import Ending
from ablate.core.processes import Contact
from ablate.core.values import digest
from ablate.execution.remote_example.cluster import LISTED_S, Cluster, Job, Unreachable
from ablate.machine.slots import Placing, Slot, Taken, Work
from ablate.store.attempt import Attempt

NAME = "remote_example"
NUM_JOBS = 2
"""At once, where the user does not say."""
ANY_WORK: frozenset[Work] = frozenset({"online", "light", "heavy"})
NOTE = ".remote_example.json"
"""In an attempt's folder; by the dot, exit.json does not list it among what changes no more."""


class RemoteExample:
    """Workers as jobs of a cluster, found by the name of their attempt."""

    name = NAME

    def __init__(self, placing: Placing, cluster: Cluster, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self._placing, self._cluster = placing, cluster
        self._device = device
        """Of every job; which card a job has is the cluster's to say, so the slot names none."""
        self._unsent: list[Callable[[], None]] = []
        """What was to be sent while the cluster could not be reached, in order."""

    def slots(self) -> Sequence[Slot]:
        if self._placing.gpus:
            raise AblateError("--gpus names cards of this machine, and workers of this executor are not on it")
        return [Slot(f"job {number}", ANY_WORK, self._device) for number in range(self._placing.num_jobs or NUM_JOBS)]

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """What others hold is for the cluster's queue to know."""
        return {}

    def submit(self, attempt: Attempt) -> None:
        self._send(partial(self._submit, attempt))

    def _submit(self, attempt: Attempt) -> None:
        _note(attempt, self._cluster.table().as_of + LISTED_S)
        self._cluster.submit(job_name(attempt), attempt.path.resolve())

    def poll(self, attempt: Attempt) -> Contact:
        try:
            self._send_unsent()
            table = self._cluster.table()
        except Unreachable:
            return "unknown"
        jobs, listed_by = table.jobs_named(job_name(attempt)), _listed_by(attempt)
        if jobs:
            if listed_by is None or table.as_of < listed_by:
                _note(attempt, table.as_of)
            return "gone" if all(job.is_over for job in jobs) else "alive"
        if listed_by is None:  # not sent yet, or never, by a driver that was killed
            _note(attempt, table.as_of + LISTED_S)
            return "alive"
        # it is not in the table yet, which may be an old one besides; or not any more, or it never came
        return "alive" if table.as_of <= listed_by else "gone"

    def end(self, attempt: Attempt) -> None:
        """A job that is not there yet, or not any more, is none to cancel: the cluster says nothing of it."""
        self._send(partial(self._cluster.cancel, job_name(attempt)))

    def ending(self, attempt: Attempt) -> Ending | None:
        return None

    def look(self, num_waiting: int) -> Sequence[str]:
        return ()

    def describe(self, attempt: Attempt) -> str:
        try:
            jobs = self._cluster.table().jobs_named(job_name(attempt))
        except Unreachable:
            return f"job {job_name(attempt)}, which cannot be asked now"
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


def _listed_by(attempt: Attempt) -> float | None:
    """-> every table later than that lists the attempt's job, until it is forgotten; by the cluster's clock.

    None: nothing is noted. No other clock counts, and no executor's memory: a process may ask once only.
    """
    record = disk.read_json(attempt.path / NOTE)
    return (record or {}).get("listed_by")


def _note(attempt: Attempt, listed_by: float) -> None:
    with contextlib.suppress(OSError):  # then whoever misses the job next notes it
        disk.write_volatile(attempt.path / NOTE, disk.json_text({"listed_by": listed_by}))


def _described(job: Job) -> str:
    return f"job {job.number} on {job.node}"
