"""A cluster whose pilots are all played by one process: what a driver costs can be measured beside them.

As a command it is that process: jobs of a study begin as soon as their folders are there, each attempt takes so long,
and its result is there without any work.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ablate.core import processes
from ablate.execution.pilots.cluster import JobStatus, Table
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import Beat, PilotJob, jobs_in
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt
from support.executors import commit_at_once
from support.paths import TESTS

NAME = "played"
OPTIONS = PilotOptions(max_jobs=200, device="cpu", look_s=1.0, submissions_per_minute=600, idle_s=3600.0)
TURN_S = 0.05


class PlayedCluster:
    """Says that every job runs that it was sent, and counts what it is asked."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._jobs: dict[str, JobStatus] = {}

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        self.num_calls += 1
        self._jobs |= {job.token: JobStatus("running", str(job.number), "node 1") for job in jobs}

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        self.num_calls += 1
        return Table(time.monotonic(), dict(self._jobs))

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        for job in jobs:
            self._jobs.pop(job.token, None)


def played_executor(options: PilotOptions = OPTIONS) -> PilotExecutor:
    return PilotExecutor(NAME, Placing(profile=NAME), PlayedCluster(), options)


@contextlib.contextmanager
def pilots_played(root: Path, study: str, stage_s: float) -> Iterator[None]:
    """All pilots of a study, as long as this lasts."""
    command = [sys.executable, "-m", "support.played_cluster", str(root), study, str(stage_s)]
    process = subprocess.Popen(command, cwd=TESTS)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class _Pilot:
    """One job, turn by turn."""

    def __init__(self, job: PilotJob) -> None:
        me = processes.identity()
        assert me
        self._job, self._beat = job, Beat(1)
        self._attempt: Attempt | None = None
        self._ends_at = 0.0
        job.write(job.pilot, process=me.model_dump(), cluster_id=str(job.number), num_restarts=0, ends_at=None)
        self._say(Beat(1))

    def turn(self, stage_s: float, me: Mapping[str, object]) -> None:
        if self._attempt is None:
            self._take(stage_s, me)
        elif time.monotonic() >= self._ends_at:
            commit_at_once(self._attempt, stage_s)
            self._attempt = None
            self._say(Beat(self._beat.beats + 1, self._beat.num_taken))

    def beat(self) -> None:
        self._say(self._beat._replace(beats=self._beat.beats + 1))
        if self._attempt:
            self._attempt.heartbeat.write_text(str(self._beat.beats))

    def _take(self, stage_s: float, me: Mapping[str, object]) -> None:
        entry = self._job.entry(self._beat.num_taken + 1)
        attempt = self._job.attempt(entry) if entry else None
        if attempt:
            number = self._beat.num_taken + 1
            self._say(Beat(self._beat.beats + 1, number, number))
            attempt.worker.write_text(json.dumps(me))
            self._attempt, self._ends_at = attempt, time.monotonic() + stage_s

    def _say(self, beat: Beat) -> None:
        self._beat = beat
        self._job.heartbeat.write_text(json.dumps(beat))


def main(root: Path, study: str, stage_s: float) -> None:
    pilots: dict[str, _Pilot] = {}
    me, beaten_at = processes.identity(), 0.0
    assert me
    while True:
        for job in jobs_in(root / "runs/jobs" / study):
            if job.path.name not in pilots and job.request.exists():
                pilots[job.path.name] = _Pilot(job)
        for pilot in pilots.values():
            pilot.turn(stage_s, me.model_dump())
        if time.monotonic() - beaten_at > 1.0:
            beaten_at = time.monotonic()
            for pilot in pilots.values():
                pilot.beat()
        time.sleep(TURN_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
