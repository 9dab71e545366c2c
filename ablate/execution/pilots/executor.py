"""An executor on any cluster: attempts as entries of pilot jobs, and what has become of them."""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ablate.core import disk, processes
from ablate.core.doctor_line import Line
from ablate.core.errors import AblateError
from ablate.core.failures import Ending
from ablate.core.processes import Contact, Identity
from ablate.execution.executors.base import LOCAL, supervisor_of
from ablate.execution.pilots.cluster import Cluster, GuardedCluster, Unreachable
from ablate.execution.pilots.cluster_line import ClusterLine
from ablate.execution.pilots.job_tables import JobTables
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob, is_asked_to_leave, open_jobs
from ablate.execution.pilots.pilot_pool import PilotPool, Place, jobs_folder, place_of, places_of
from ablate.execution.profiles import Profile
from ablate.machine.slots import Placing, Slot, Taken, Work
from ablate.store.attempt import Attempt

ANSWER_S = 5.0
"""For a pilot to have killed what it is at."""
HAND_IN_S = 60.0
"""For a driver that cannot be asked from here to hand in an attempt whose request it has written."""
TIDY_S = 1.0
"""Between two looks for pilots that are idle."""
PASSING = ("killed", "lost", "preempted")
"""How a job may end that has nothing to do with an attempt which it had not begun."""


class PilotExecutor:
    """`name` is the kind of executor. The truth is in the folders; the cluster is asked for what they do not say."""

    options: ClassVar[type[PilotOptions]] = PilotOptions
    """What a profile of the kind may say."""

    def __init__(self, name: str, placing: Placing, cluster: Cluster, options: PilotOptions) -> None:
        self.name = name
        self._placing, self._options = placing, options
        self._cluster, self._guarded = cluster, GuardedCluster(cluster)
        self._profile = Profile(placing.profile if placing.profile != LOCAL else name, name, placing.options)
        self._line = ClusterLine(self._profile.name, self._guarded, options)
        self._is_driver = False
        """Whether stages are handed out here: then the line asks the cluster, and nobody else does."""
        self._tables = JobTables(self._guarded, options.missing_s)
        """Of a process without a driver."""
        self._pool: PilotPool | None = None
        self._first_seen: dict[Path, float] = {}
        self._tidied_at = 0.0

    def slots(self) -> Sequence[Slot]:
        if self._placing.gpus:
            raise AblateError("--gpus names cards of this machine, and workers of this executor are not on it")
        num = self._placing.num_jobs or self._options.max_jobs
        return [self._slot(f"{self._profile.name} job {number}") for number in range(1, num + 1)]

    def _slot(self, name: str) -> Slot:
        it = self._options
        takes: set[Work] = {"light", "heavy", "online"} if it.network else {"light", "heavy"}
        return Slot(
            name,
            frozenset(takes),
            it.device,
            threads=it.threads,
            model=it.model,
            memory_bytes=it.memory_bytes,
            profile=self._profile.name,
            num_gpus=it.cards,
        )

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        """Where a job would have to queue first, and for how long; all while the cluster cannot be asked."""
        names = [slot.name for slot in self.slots()]
        if outage := self._line.outage:
            return dict.fromkeys(names, Taken(1, f"{self._profile.name} cannot be asked ({outage})"))
        held = {(attempt.request or {}).get("slot", {}).get("name"): attempt for attempt in at_work}
        begun = {name for name, attempt in held.items() if (place := place_of(attempt)) and place.job.pilot.exists()}
        free = [name for name in names if name not in held]
        at_once = begun.union(free[: self._pool.num_idle() if self._pool else 0])
        wait_s = self._line.wait_s
        return {name: Taken(0, "", wait_s) for name in names if name not in at_once and wait_s > 0}

    # handing in

    def owns(self, job: PilotJob) -> bool:
        """Whether a job was sent for this profile, with the same options: only such a one gets more work."""
        return job.profile.address == self._profile.address

    def begin(self, jobs: Path) -> None:
        self._is_driver = True
        self._pool = PilotPool(jobs, self._profile, self._options, self._line)

    def submit(self, attempt: Attempt) -> None:
        if self._pool is None or self._pool.folder != jobs_folder(attempt):
            self.begin(jobs_folder(attempt))
        assert self._pool
        is_warm = self._options.fork_server and self._placing.uses_fork_server
        self._pool.submit(attempt, fork_server=is_warm, driver=(attempt.request or {}).get("driver"))

    # what has become of them

    def poll(self, attempt: Attempt) -> Contact:
        if attempt.exit is not None:
            return "gone"
        places = [place for place in places_of(attempt) if place.holds(attempt)]
        if not places:
            return self._unplaced(attempt)
        left = [place for place in places if not place.is_gone_for(attempt)]
        if left:
            return self._by_table(attempt, left[0].job)
        return "alive" if self._is_placed_anew(attempt, places[0]) else "gone"

    def _unplaced(self, attempt: Attempt) -> Contact:
        """It was not handed in yet, or its driver was killed before it could."""
        request = attempt.request
        if request and processes.contact(Identity.model_validate(request["driver"])) == "gone":
            return "gone"
        first = self._first_seen.setdefault(attempt.path, time.monotonic())
        return "alive" if time.monotonic() - first < HAND_IN_S else "gone"

    def _is_placed_anew(self, attempt: Attempt, place: Place) -> bool:
        """Whether another job has it now: the one that it was handed to had worked before, and never began it.

        Of a job that had not worked before this is so once, where its pilot was sent away: the next may be, too.
        """
        job, number = place
        if self._pool is None or jobs_folder(attempt) != self._pool.folder or supervisor_of(attempt):
            return False
        if number == 1 and not (job.exit.exists() and len(places_of(attempt)) == 1):
            return False
        over = job.record(job.over)
        is_unwanted = job.kill_request(number).exists() or attempt.stop_request.exists()
        if is_unwanted or (over and over.get("failure") not in PASSING):
            return False
        with contextlib.suppress(OSError):  # the disk keeps us from it: with the next look, perhaps
            self.submit(attempt)
        return True

    def _by_table(self, attempt: Attempt, job: PilotJob) -> Contact:
        tables = self._asked(job)
        if _is_begun_anew(attempt, job, tables):
            return "gone"
        if tables.problem:
            return "unknown"
        if self._is_driver:
            return "alive"  # its end will be written down
        return "gone" if tables.is_over(job) or self._will_not_come(job, tables) else "alive"

    def _will_not_come(self, job: PilotJob, tables: JobTables) -> bool:
        if not tables.is_missing(job):
            return False
        driver = job.record(job.request).get("driver")
        return (
            not tables.is_missing_unsent(job)
            or driver is None
            or processes.contact(Identity.model_validate(driver)) == "gone"
        )

    def _asked(self, job: PilotJob) -> JobTables:
        """-> what the cluster says; asked here and now, once for all jobs, where no line does it."""
        if self._is_driver:
            if not job.is_closed:
                self._line.mind(job)  # it may be another study's, whose driver may be gone
            return self._line.tables
        if time.monotonic() - self._tables.asked_at >= self._options.look_s:
            folders = [path for path in job.path.parents[1].iterdir() if path.is_dir()]
            self._tables.ask([one for path in folders for one in open_jobs(path) if self._is_of_its_name(one)])
        return self._tables

    def _is_of_its_name(self, job: PilotJob) -> bool:
        return (job.profile.kind, job.profile.name) == (self._profile.kind, self._profile.name)

    def ending(self, attempt: Attempt) -> Ending | None:
        place = place_of(attempt)
        if place is None:
            return None
        job = place.job
        if over := job.record(job.over):
            return Ending(over["failure"], over["message"])
        if attempt.exit is not None:
            return self._why_stopped(attempt, job)
        if place.is_passed:
            return _ending_of_passed(attempt, job)
        if job.exit.exists():
            why = job.record(job.exit).get("why")
            return Ending("preempted", f"its job left before it had saved a checkpoint: {why}")
        status = self._asked(job).status(job)
        if status and status.phase != "over":
            return Ending("preempted", f"the cluster began job {status.id} anew")
        return status.ending if status else None

    def _why_stopped(self, attempt: Attempt, job: PilotJob) -> Ending | None:
        """-> who had a job leave, which sends SIGTERM for a user's word and others alike; None: not known yet."""
        why = job.record(job.exit).get("why")
        if why and not is_asked_to_leave(job):
            return Ending("preempted", why)
        status = self._asked(job).status(job)
        if status is None or status.phase == "running":
            return None
        return status.ending or Ending("preempted", status.why)

    def end(self, attempt: Attempt) -> None:
        for place in places_of(attempt):
            if not place.job.is_closed:
                self._end_at(place)

    def _end_at(self, place: Place) -> None:
        with contextlib.suppress(OSError):
            disk.write_volatile(place.job.kill_request(place.number), "")
        if self._is_driver:
            self._end_as_driver(place)
        elif not place.job.pilot.exists() or not _is_killed_soon(place):
            with contextlib.suppress(Unreachable):
                self._guarded.cancel([place.job])

    def _end_as_driver(self, place: Place) -> None:
        if place.job.pilot.exists():
            self._line.cancel_unless(place.job, lambda: place.is_gone, ANSWER_S)
        elif self._pool:
            self._pool.cancel(place.job)
        else:
            self._line.cancel(place.job)

    def describe(self, attempt: Attempt) -> str:
        place = place_of(attempt)
        if place is None:
            return f"a job of {self._profile.name} that is not sent yet"
        record, status = place.job.record(place.job.pilot), self._asked(place.job).status(place.job)
        id_ = (status.id if status else "") or record.get("cluster_id") or place.job.token
        node = (status.node if status else "") or record.get("process", {}).get("host", "")
        return f"job {id_}" + (f" on {node}" if node else "")

    # the driver's turn

    def look(self, num_waiting: int) -> Sequence[str]:
        if self._pool and time.monotonic() - self._tidied_at > TIDY_S:
            self._tidied_at = time.monotonic()
            self._pool.move_to_idle()
            if num_waiting == 0:
                self._pool.send_away_idle()
        return self._line.look()

    def check(self) -> Iterable[Line]:
        """-> what `doctor` tells of the cluster. Raises Unreachable."""
        check = getattr(self._cluster, "check", None)  # of a `CheckedCluster`
        return check() if check else ()

    def leave(self) -> None:
        """Jobs without work are another driver's from now on."""
        self._pool = None

    def close(self) -> None:
        if self._pool:
            self._pool.send_away_idle()
        self._line.close()


def _is_begun_anew(attempt: Attempt, job: PilotJob, tables: JobTables) -> bool:
    """Whether the cluster has begun a job anew since an attempt was signed."""
    status = tables.status(job)
    if status is None or status.num_restarts == 0 or supervisor_of(attempt) is None:
        return False
    return status.num_restarts > int(job.record(job.pilot).get("num_restarts", 0))


def _ending_of_passed(attempt: Attempt, job: PilotJob) -> Ending | None:
    """-> why a pilot that lives has an attempt behind it that left no word; None: its worker was killed."""
    worker, pilot = supervisor_of(attempt), job.record(job.pilot).get("process")
    if worker is None:
        return Ending("preempted", "its job had no time left for it")
    is_here = pilot and (worker.host, worker.boot) == (pilot["host"], pilot["boot"])
    if pilot is None or (is_here and worker.started >= pilot["started"]):
        return None
    return Ending("preempted", "the cluster began its job anew")


def _is_killed_soon(place: Place) -> bool:
    until = time.monotonic() + ANSWER_S
    while not place.is_gone and time.monotonic() < until:
        time.sleep(0.1)
    return place.is_gone
