"""An executor on any cluster: which pilot job gets which attempt, and what has become of it."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, processes
from ablate.core.errors import AblateError
from ablate.core.failures import Ending
from ablate.core.processes import Contact, Identity
from ablate.execution.executors.base import supervisor_of
from ablate.execution.pilots.cluster import Cluster, Unreachable
from ablate.execution.pilots.cluster_line import ClusterLine
from ablate.execution.pilots.job_tables import JobTables
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob, claim_job, jobs_in
from ablate.machine.slots import Placing, Slot, Taken, Work
from ablate.store.attempt import Attempt

NOTE = ".pilot.json"
"""In an attempt's folder: which entry of which job it is; by the dot, exit.json does not list it."""
ANSWER_S = 5.0
"""For a pilot to have killed what it is at."""
START_S = 60.0
"""For a driver that cannot be asked from here to hand in an attempt whose request it has written."""
TIDY_S = 1.0
"""Between two looks for jobs that wait for work when there is none."""


class Place(NamedTuple):
    """Where an attempt was handed in."""

    job: PilotJob
    number: int


@dataclass
class _Mine:
    """A job that this driver may hand attempts to."""

    job: PilotJob
    num_entries: int = 0
    attempt: Attempt | None = None
    """The last that it was given."""
    is_leaving: bool = False
    """It was asked to go, or takes no more."""

    @property
    def is_free(self) -> bool:
        return not self.is_leaving and (self.attempt is None or self.attempt.exit is not None)


class PilotExecutor:
    """Attempts as entries of pilot jobs. `name` is the kind of executor; the truth is in the folders."""

    def __init__(self, name: str, placing: Placing, cluster: Cluster, options: PilotOptions) -> None:
        self.name = name
        self._placing, self._cluster, self._options = placing, cluster, options
        self._profile = placing.profile if placing.profile != "local" else name
        self._line = ClusterLine(self._profile, cluster, options)
        self._is_driver = False
        """Whether stages are handed out here: then the line asks the cluster, and nobody else does."""
        self._tables = JobTables(cluster, options.missing_s)
        """Of a process without a driver."""
        self._jobs: dict[Path, dict[Path, _Mine]] = {}
        """By folder of a study's jobs, then by the job's."""
        self._first_seen: dict[Path, float] = {}
        self._tidied_at = 0.0

    def slots(self) -> Sequence[Slot]:
        if self._placing.gpus:
            raise AblateError("--gpus names cards of this machine, and workers of this executor are not on it")
        works: set[Work] = {"light", "heavy", "online"} if self._options.network else {"light", "heavy"}
        num = self._placing.num_jobs or self._options.max_jobs
        return [self._slot(f"{self._profile} job {number}", frozenset(works)) for number in range(1, num + 1)]

    def _slot(self, name: str, takes: frozenset[Work]) -> Slot:
        it = self._options
        return Slot(
            name,
            takes,
            it.device,
            threads=it.threads,
            model=it.model,
            memory_bytes=it.memory_bytes,
            profile=self._profile,
        )

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """What others hold is for the cluster's queue to know."""
        return {}

    # handing in

    def submit(self, attempt: Attempt) -> None:
        self._is_driver = True
        mine = self._jobs_beside(attempt)
        free = [one for one in mine.values() if one.is_free and not one.job.is_closed]
        for one in sorted(free, key=lambda one: not one.job.pilot.exists()):
            if self._has_time(one.job) and self._has_handed_in(one, attempt):
                return
        job = claim_job(_jobs_folder(attempt))
        job.write(job.request, **self._wishes(attempt))
        mine[job.path] = _Mine(job)
        self._has_handed_in(mine[job.path], attempt)
        self._line.send(job)

    def _has_handed_in(self, one: _Mine, attempt: Attempt) -> bool:
        """-> False where the pilot takes no more."""
        one.num_entries += 1
        note = {"job": one.job.path.relative_to(one.job.root).as_posix(), "number": one.num_entries}
        disk.write_volatile(attempt.path / NOTE, disk.json_text(note))
        if one.job.hand_in(one.num_entries, attempt):
            one.attempt = attempt
            return True
        one.is_leaving = True
        return False

    def _has_time(self, job: PilotJob) -> bool:
        ends_at = job.record(job.pilot).get("ends_at")
        return ends_at is None or ends_at - time.time() > self._options.margin_s

    def _wishes(self, attempt: Attempt) -> dict[str, object]:
        """-> job.json."""
        it = self._options
        return {
            "executor": self.name,
            "profile": self._profile,
            "driver": (attempt.request or {}).get("driver"),
            "device": it.device,
            "time_s": it.time_s,
            "idle_s": it.idle_s,
            "margin_s": it.margin_s,
            "fork_server": it.fork_server and self._placing.uses_fork_server,
        }

    def _jobs_beside(self, attempt: Attempt) -> dict[Path, _Mine]:
        """-> the jobs of an attempt's study under this profile, with those of its earlier drivers."""
        folder = _jobs_folder(attempt)
        if folder not in self._jobs:
            self._jobs[folder] = {job.path: self._adopted(job) for job in self._open_jobs(folder)}
        return self._jobs[folder]

    def _open_jobs(self, folder: Path) -> list[PilotJob]:
        jobs = [job for job in jobs_in(folder) if not job.is_closed]
        return [job for job in jobs if self._is_of_profile(job)]

    def _is_of_profile(self, job: PilotJob) -> bool:
        wishes = job.record(job.request)
        return (wishes.get("executor"), wishes.get("profile")) == (self.name, self._profile)

    def _adopted(self, job: PilotJob) -> _Mine:
        self._line.mind(job)
        entries = job.entries()
        last = job.attempt(entries[-1]) if entries else None
        is_leaving = job.stop_request.exists() or (bool(entries) and last is None)
        return _Mine(job, len(entries), last, is_leaving)

    # what has become of them

    def poll(self, attempt: Attempt) -> Contact:
        if attempt.exit is not None:
            self._note_end(attempt)
            return "gone"
        place = place_of(attempt)
        if place is None or (entry := place.job.entry(place.number)) is None:
            return self._unplaced(attempt)
        if place.job.attempt(entry) != attempt or _is_gone_by_files(place):
            self._note_end(attempt)
            return "gone"
        return self._by_table(attempt, place.job)

    def _note_end(self, attempt: Attempt) -> None:
        place = place_of(attempt) if self._is_driver else None
        if place:
            self._line.has_killed(place.job)

    def _unplaced(self, attempt: Attempt) -> Contact:
        """It was not handed in yet, or its driver was killed before it could."""
        request = attempt.request
        if request and processes.contact(Identity.model_validate(request["driver"])) == "gone":
            return "gone"
        first = self._first_seen.setdefault(attempt.path, time.monotonic())
        return "alive" if time.monotonic() - first < START_S else "gone"

    def _by_table(self, attempt: Attempt, job: PilotJob) -> Contact:
        tables = self._asked(attempt)
        status = tables.status(job)
        if status and supervisor_of(attempt) and status.num_restarts > job.record(job.pilot).get("num_restarts", 0):
            return "gone"
        if tables.problem:
            return "unknown"
        if self._is_driver and self._line.is_minded(job):
            return "alive"  # its end will be written down
        return "gone" if tables.is_over(job) or self._will_not_come(job, tables) else "alive"

    def _will_not_come(self, job: PilotJob, tables: JobTables) -> bool:
        if not tables.is_missing(job):
            return False
        driver = job.record(job.request).get("driver")
        is_sent = job.acknowledged.exists() or job.pilot.exists()
        return is_sent or driver is None or processes.contact(Identity.model_validate(driver)) == "gone"

    def _asked(self, attempt: Attempt) -> JobTables:
        """-> what the cluster says; asked here and now, once for all attempts, where no line does it."""
        if self._is_driver:
            self._jobs_beside(attempt)
            return self._line.tables
        if time.monotonic() - self._tables.asked_at >= self._options.look_s:
            folders = _jobs_folder(attempt).parent.iterdir()
            self._tables.ask([job for folder in folders for job in self._open_jobs(folder)])
        return self._tables

    def ending(self, attempt: Attempt) -> Ending | None:
        place = place_of(attempt)
        if place is None:
            return None
        job, number = place
        if over := job.record(job.over):
            return Ending(over["failure"], over["message"])
        beat = job.beat
        if beat.num_taken >= number and beat.at != number and not job.exit.exists():
            return None if supervisor_of(attempt) else Ending("preempted", "its job had no time left for it")
        if job.exit.exists():
            why = job.record(job.exit).get("why")
            return Ending("preempted", f"its job left before it had saved a checkpoint: {why}")
        status = self._asked(attempt).status(job)
        if status and status.phase == "over":
            return status.ending
        return Ending("preempted", f"the cluster began job {status.id} anew") if status else None

    def end(self, attempt: Attempt) -> None:
        place = place_of(attempt)
        if place is None or place.job.is_closed:
            return
        job, number = place
        with contextlib.suppress(OSError):
            disk.write_volatile(job.kill_request(number), "")
        if self._is_driver:
            self._end_as_driver(job)
        elif not job.pilot.exists() or not _is_killed_soon(place):
            with contextlib.suppress(Unreachable):
                self._cluster.cancel([job])

    def _end_as_driver(self, job: PilotJob) -> None:
        if job.pilot.exists():
            self._line.cancel_unless_gone(job, ANSWER_S)
        else:
            self._line.cancel(job)
            for mine in self._jobs.values():
                if job.path in mine:
                    mine[job.path].is_leaving = True

    def describe(self, attempt: Attempt) -> str:
        place = place_of(attempt)
        if place is None:
            return f"a job of {self._profile} that is not sent yet"
        record = place.job.record(place.job.pilot)
        status = self._asked(attempt).status(place.job)
        id_ = (status.id if status else "") or record.get("cluster_id") or place.job.token
        node = (status.node if status else "") or record.get("process", {}).get("host", "")
        return f"job {id_}" + (f" on {node}" if node else "")

    # the driver's turn

    def look(self, num_waiting: int) -> Sequence[str]:
        self._is_driver = True
        if num_waiting == 0 and time.monotonic() - self._tidied_at > TIDY_S:
            self._tidied_at = time.monotonic()
            self._send_away_the_idle()
        return self._line.look()

    def _send_away_the_idle(self) -> None:
        for mine in self._jobs.values():
            for one in mine.values():
                if one.is_free:
                    self._send_away(one)

    def _send_away(self, one: _Mine) -> None:
        one.is_leaving = True
        with contextlib.suppress(OSError):  # it leaves by itself after a while
            disk.write_volatile(one.job.stop_request, "")
        if not one.job.pilot.exists() and not one.job.is_closed:
            self._line.cancel(one.job)

    def close(self) -> None:
        if self._is_driver:
            self._send_away_the_idle()
        self._line.close()


def place_of(attempt: Attempt) -> Place | None:
    """-> where an attempt was handed in; None where it was not, yet."""
    record = disk.read_json(attempt.path / NOTE)
    if not isinstance(record, dict):
        return None
    return Place(PilotJob(attempt.path.parents[3] / record["job"]), record["number"])


def _jobs_folder(attempt: Attempt) -> Path:
    return attempt.path.parents[2] / "jobs" / str((attempt.request or {}).get("study", "none"))


def _is_gone_by_files(place: Place) -> bool:
    """Whether a pilot has been at an entry and is not any more, or none will come to it."""
    beat = place.job.beat
    return (beat.num_taken >= place.number and beat.at != place.number) or place.job.is_closed


def _is_killed_soon(place: Place) -> bool:
    until = time.monotonic() + ANSWER_S
    while not (is_gone := _is_gone_by_files(place)) and time.monotonic() < until:
        time.sleep(0.1)
    return is_gone
