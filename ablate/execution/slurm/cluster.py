"""Slurm as a cluster: sbatch, squeue and scancel, one call a look each; sacct for jobs that squeue has forgotten."""

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from ablate.core.doctor_line import Line
from ablate.execution.pilots.cluster import JobStatus, Refused, Table, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm import checks, commands, job_table, reasons
from ablate.execution.slurm.job_table import Row
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.slurm.script import script

MOST_RELEASES = 3
"""So often, a look apart, is a job let go that Slurm holds since a node failed to begin it; then it is hopeless."""
_NOTHING_TO_END = re.compile(r"invalid job id|already completing or completed|job/step already", re.IGNORECASE)


class Slurm:
    """The line to the Slurm whose commands are in PATH. It keeps nothing that another process would miss."""

    def __init__(self, options: SlurmOptions) -> None:
        self._options = options
        self._array_limit: int | None = None
        self._room: int | None = None
        """So many jobs are sent at once, since more were too many for this user's limit; None: no limit was met."""
        self._ids: dict[str, str] = {}
        """Token -> Slurm's name of the job, of jobs that were sent or seen."""
        self._ended: dict[str, JobStatus] = {}
        """Jobs that were seen to be over: Slurm forgets them after MinJobAge, five minutes mostly."""
        self._is_accounting = True
        """Until sacct says that the cluster keeps no accounts."""
        self._num_releases: Counter[tuple[str, int]] = Counter()
        """Id and restarts of jobs that Slurm held -> how often they were to be let go."""

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        """A limit of the user's is found by halves, one try a call: the jobs that did not fit come again later."""
        left = list(jobs)
        while left:
            num = min(self._most_tasks() if len(left) > 1 else 1, self._room or len(left))
            self._send(left[:num])
            left = left[num:]

    def _send(self, jobs: Sequence[PilotJob]) -> None:
        """One job, or one array."""
        try:
            answer = self._ask(["sbatch", "--parsable"], script(jobs, self._options, sys.executable))
        except commands.Full:
            self._room = max(1, len(jobs) // 2)
            raise
        self._room = 2 * self._room if self._room else None
        if number := job_table.submitted(answer):
            ids = [number] if len(jobs) == 1 else [f"{number}_{task}" for task in range(len(jobs))]
            self._ids |= {job.token: id_ for job, id_ in zip(jobs, ids, strict=True)}

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        asked_at = time.monotonic()
        rows = job_table.by_token(self._rows(jobs))
        self._release(list(rows.values()))
        listed = {token: self._status(row) for token, row in rows.items()}
        self._ids |= {token: status.id for token, status in listed.items()}
        self._ended |= {token: status for token, status in listed.items() if status.phase == "over"}
        missing = [job.token for job in jobs if job.token not in listed and job.token not in self._ended]
        self._look_up(missing)
        return Table(asked_at, self._ended | listed)

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        tokens = [job.token for job in jobs]
        if not all(token in self._ids for token in tokens):
            self._ids |= {row.token: row.id for row in job_table.by_token(self._rows(jobs)).values()}
        ids = [self._ids[token] for token in tokens if token in self._ids]
        if not ids:
            return
        try:
            self._ask(["scancel", *job_table.together(ids)])
        except Refused as error:
            if not _NOTHING_TO_END.search(str(error)):
                raise Unreachable(str(error)) from error

    def _rows(self, jobs: Sequence[PilotJob]) -> list[Row]:
        """Those of this user's jobs that are ours: one question, however many there are.

        By their studies' names, so that thousands of the user's other jobs are not listed.
        """
        names = ",".join(sorted({job_table.name(job.study) for job in jobs}))
        words = ["squeue", "--user", str(os.getuid()), "--name", names, "--all", "--array", "--states=all"]
        try:
            return job_table.rows(self._ask([*words, "--Format", job_table.FORMAT]))
        except Refused as error:  # whatever it says: no answer is no word about any job
            raise Unreachable(str(error)) from error

    def _status(self, row: Row) -> JobStatus:
        status = job_table.status(row, is_of_many_partitions="," in (self._options.partition or ""))
        if self._num_releases[row.id, row.num_restarts] > MOST_RELEASES and reasons.is_held_by_slurm(row.reason):
            return status._replace(is_hopeless=True)  # it does not let go
        return status

    def _release(self, rows: Sequence[Row]) -> None:
        """Has jobs go on that Slurm holds since a node failed to begin them: that node is drained, others are not."""
        held = [row for row in rows if reasons.is_held_by_slurm(row.reason) and row.state in reasons.QUEUED]
        self._num_releases.update((row.id, row.num_restarts) for row in held)
        due = [row.id for row in held if self._num_releases[row.id, row.num_restarts] <= MOST_RELEASES]
        if not due:
            return
        try:
            self._ask(["scontrol", "release", ",".join(due)])
        except (Refused, Unreachable):
            return  # the next table finds them held still

    def _look_up(self, tokens: Sequence[str]) -> None:
        """Asks the accounts once for what has gone from the table."""
        ids = {self._ids[token]: token for token in tokens if token in self._ids}
        if not ids or not self._is_accounting:
            return
        words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format", job_table.SACCT_FORMAT]
        try:
            accounts = self._ask([*words, "--jobs", ",".join(ids)])
        except Unreachable:
            return
        except Refused:  # no accounts are kept, or they are not for users
            self._is_accounting = False
            return
        self._ended |= {ids[job]: status for job, status in job_table.accounted(accounts) if job in ids}

    def _most_tasks(self) -> int:
        if self._array_limit is None:
            self._array_limit = job_table.array_limit(self._ask(["scontrol", "show", "config"]))
        return self._array_limit

    def check(self) -> Iterable[Line]:
        """For `ablate doctor`."""
        return checks.check(self._ask, self._options)

    def _ask(self, words: Sequence[str], text: str = "") -> str:
        return commands.answer(words, timeout_s=self._options.command_s, text=text)
