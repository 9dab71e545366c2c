"""What a cluster has said of jobs, table after table. That a job is not in one means nothing by itself."""

import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from ablate.core import disk, processes, shared_folders
from ablate.execution.pilots.cluster import Cluster, JobStatus, Table, Unreachable
from ablate.execution.pilots.pilot_job import Beat, PilotJob


def now_here() -> dict[str, object]:
    """-> this moment, as any process of this machine can compare it, until the machine starts anew."""
    me = processes.identity()
    return {"boot": me.boot if me else "", "at": time.monotonic()}


class JobTables:
    """The last table, and what is remembered of those before it: partly in the jobs' folders, for other processes."""

    def __init__(self, cluster: Cluster, missing_s: float) -> None:
        self._cluster, self._missing_s = cluster, missing_s
        self._statuses: dict[str, JobStatus] = {}
        self._beats: dict[str, Beat] = {}
        """By token: the heartbeat when a table was read last."""
        self._moved_at: dict[str, float] = {}
        """When a heartbeat was first seen to be what it is."""
        self._over: set[str] = set()
        self._missing: set[str] = set()
        self._unsent: set[str] = set()
        """Those of the missing that nobody knew the cluster to have had."""
        self.problem: str | None = None
        """Why the last question had no answer."""
        self.asked_at = float("-inf")

    def ask(self, jobs: Sequence[PilotJob]) -> bool:
        """-> whether there was an answer."""
        self.asked_at = time.monotonic()
        try:
            table = self._cluster.table(jobs)
        except Unreachable as error:
            self.problem = str(error) or "it does not answer"
            return False
        self.problem = None
        self._read(table, jobs)
        return True

    def status(self, job: PilotJob) -> JobStatus | None:
        """-> what was heard of a job last; None where the last table has it not."""
        return self._statuses.get(job.token)

    def is_over(self, job: PilotJob) -> bool:
        """Whether a job has ended: the cluster says so, and no heartbeat says otherwise."""
        return job.token in self._over

    def is_missing(self, job: PilotJob) -> bool:
        """Whether it is not listed any more, or never was, for so long that it will not come."""
        return job.token in self._missing

    def is_missing_unsent(self, job: PilotJob) -> bool:
        """The same, and whether the cluster was not known to have had it then: its driver may be about to send it."""
        return job.token in self._unsent

    def silent_s(self, job: PilotJob) -> float:
        """-> how long its heart has not been seen to beat."""
        return time.monotonic() - self._moved_at.get(job.token, time.monotonic())

    def forget(self, job: PilotJob) -> None:
        """That it was missed before says nothing: it is there, or is sent again."""
        self._forget_missing(job)
        with suppress(OSError):
            if job.absence.exists():  # a removal lists the folder, and this is asked of every job at every look
                disk.unlink(job.absence)

    def _read(self, table: Table, jobs: Collection[PilotJob]) -> None:
        for job in jobs:
            shared_folders.look_afresh(job.path)
            beat, before = job.beat, self._beats.get(job.token)
            self._beats[job.token] = beat
            if beat != before:
                self._moved_at[job.token] = time.monotonic()
            status = table.jobs.get(job.token)
            if status is None:
                self._statuses.pop(job.token, None)
                self._miss(job, table.asked_at, beat)
                continue
            self._statuses[job.token] = status
            self.forget(job)
            if status.phase == "over" and before in (None, beat, Beat()):
                self._over.add(job.token)

    def _forget_missing(self, job: PilotJob) -> None:
        self._missing.discard(job.token)
        self._unsent.discard(job.token)

    def _miss(self, job: PilotJob, asked_at: float, beat: Beat) -> None:
        self._forget_missing(job)
        boot = now_here()["boot"]
        sent, is_sent = job.record(job.acknowledged), job.is_sent
        if sent.get("boot") == boot and sent["at"] > asked_at:
            return
        # one that was sent meanwhile is missed anew
        seen = {"boot": boot, "beat": list(beat), "is_sent": is_sent}
        since = job.record(job.absence)
        if any(since.get(name) != value for name, value in seen.items()) or since["at"] > asked_at:
            with suppress(OSError):
                job.write(job.absence, at=asked_at, **seen)
        elif asked_at - since["at"] >= self._missing_s:
            self._missing.add(job.token)
            if not is_sent:
                self._unsent.add(job.token)
