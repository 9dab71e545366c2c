"""What a cluster says of jobs, or does not say, and how often it is asked, as the driver takes it."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.pilots import asked_for, jobs_of, options
from support.toys import toy, wait_for

from ablate.core import processes
from ablate.core.failures import Ending
from ablate.execution import attempts
from ablate.execution.pilots.cluster import JobStatus, Refused, Table, Unreachable
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.job_tables import now_here
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.pilots.pilot_pool import NOTE, place_of
from ablate.execution.remote_example.executor import NAME
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt


class Scripted:
    """A cluster that does as it is told, and counts what it is asked."""

    def __init__(self, status: JobStatus | None = None, error: Exception | None = None) -> None:
        self.status, self.error = status, error
        self.num_submits, self.num_tables, self.sent = 0, 0, []

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        self.num_submits += 1
        self.sent.append([job.number for job in jobs])
        if self.error:
            raise self.error

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        self.status = JobStatus("over", "7", ending=Ending("cancelled", "scancel"))

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        self.num_tables += 1
        return Table(time.monotonic(), {job.token: self.status for job in jobs} if self.status else {})


def scripted(root: Path, cluster: Any, **changed: object) -> tuple[PilotExecutor, Attempt]:
    executor = PilotExecutor(NAME, Placing(), cluster, options(**changed))
    attempt = asked_for(root, toy())
    executor.submit(attempt)
    return executor, attempt


def ending_of(executor: PilotExecutor, attempt: Attempt) -> Ending:
    wait_for(lambda: executor.look(1) is not None and executor.poll(attempt) == "gone", 10)
    ending = executor.ending(attempt)
    executor.close()
    assert ending
    return ending


def test_a_job_that_the_cluster_refuses_is_unfit_in_the_clusters_words(tmp_path):
    executor, attempt = scripted(tmp_path, Scripted(error=Refused("Invalid partition name: gpuu")))
    ending = ending_of(executor, attempt)
    assert ending.failure == "unfit"
    assert "Invalid partition name: gpuu" in ending.message
    other = PilotExecutor(NAME, Placing(), Scripted(), options())
    assert (other.poll(attempt), other.ending(attempt)) == ("gone", ending)  # for every process


def test_a_job_that_would_wait_for_ever_is_unfit_at_once(tmp_path):
    hopeless = JobStatus("queued", "7", why="BadConstraints", is_hopeless=True)
    executor, attempt = scripted(tmp_path, Scripted(hopeless))
    ending = ending_of(executor, attempt)
    assert ending == Ending("unfit", "job 7 would wait for ever: BadConstraints")


@pytest.mark.parametrize("failure", ["lost", "preempted", "cancelled", "memory"])
def test_how_a_job_ended_is_how_its_attempt_did(tmp_path, failure):
    over = JobStatus("over", "7", why="NODE_FAIL", ending=Ending(failure, "as the cluster says"))
    executor, attempt = scripted(tmp_path, Scripted(over))
    assert ending_of(executor, attempt) == Ending(failure, "as the cluster says")


def test_of_a_job_that_ends_before_its_pilot_begins_is_told_what_its_script_said_last(tmp_path):
    over = JobStatus("over", "7", why="FAILED (NonZeroExitCode)")
    executor, attempt = scripted(tmp_path, Scripted(over))
    place = place_of(attempt)
    assert place
    place.job.log.write_text("Loading.\nbash: module: command not found\n")
    ending = ending_of(executor, attempt)
    assert ending.failure == "killed"
    assert f"{place.job.log} ends with 'bash: module: command not found'" in ending.message
    (tmp_path / "other").mkdir()
    executor, attempt = scripted(tmp_path / "other", Scripted(over))
    assert "nothing was written to" in ending_of(executor, attempt).message


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file or directory", "sbatch"), TypeError("a bug")])
def test_a_cluster_whose_code_cannot_send_ends_the_stage_and_says_why(tmp_path, error):
    executor, attempt = scripted(tmp_path, Scripted(error=error))
    ending = ending_of(executor, attempt)
    assert ending.failure == "unfit"
    assert f"{NAME} refuses the job: {type(error).__name__}: {error}" in ending.message


class Unreadable(Scripted):
    """Its table cannot be read: another version's, a bug, a command that is not here."""

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        raise KeyError("JOBID")


def test_a_table_that_cannot_be_read_is_an_outage_which_is_told_and_heartbeats_decide(tmp_path, monkeypatch):
    from ablate.execution.pilots import cluster_line

    monkeypatch.setattr(cluster_line, "OUTAGE_S", 0.3)
    executor, attempt = scripted(tmp_path, Unreadable())
    wait_for(lambda: executor.look(1) is not None and executor.poll(attempt) == "unknown", 10)
    wait_for(lambda: executor.look(1) is not None and any(one.shares for one in executor.taken([]).values()), 10)
    assert {one.why for one in executor.taken([]).values()} == {f"{NAME} cannot be asked (KeyError: 'JOBID')"}
    executor.close()
    alone = PilotExecutor(NAME, Placing(), Unreadable(), options())  # as `status` and `stop` have it
    assert alone.poll(attempt) == "unknown"


def test_a_cancel_that_fails_is_told_and_holds_up_nothing_else(tmp_path):
    class Uncancelling(Scripted):
        def cancel(self, jobs: Sequence[PilotJob]) -> None:
            raise RuntimeError("not today")

    cluster, notes = Uncancelling(JobStatus("queued", "7")), []
    executor, attempt = scripted(tmp_path, cluster)
    wait_for(lambda: executor.look(1) is not None and cluster.sent, 10)
    attempts.withdraw(attempt, Ending("cancelled", "stopped before it had begun"))
    executor.end(attempt)
    wait_for(lambda: notes.extend(executor.look(1)) or notes, 10)
    assert notes == [f"{NAME}: 1 job waits to be cancelled: RuntimeError: not today"]
    executor.submit(asked_for(tmp_path, toy(seed=1)))
    wait_for(lambda: executor.look(1) is not None and cluster.sent == [[1], [2]], 10)
    executor.close()


def test_jobs_that_a_cluster_does_not_take_yet_are_told_of(tmp_path):
    executor, _ = scripted(tmp_path, Scripted(None, Unreachable("job submit limit")))
    notes: list[str] = []
    wait_for(lambda: notes.extend(executor.look(1)) or notes, 10)
    assert notes == [f"{NAME}: 1 job waits to be sent again: job submit limit"]
    executor.close()


def test_a_job_whose_driver_was_killed_before_it_sent_it_is_sent_by_the_next(tmp_path):
    _, attempt = scripted(tmp_path, Scripted())  # handed in, never sent
    cluster = Scripted()
    executor = PilotExecutor(NAME, Placing(), cluster, options(missing_s=0.3))
    executor.begin(tmp_path / "runs/jobs/toys")
    wait_for(lambda: executor.look(1) is not None and cluster.sent == [[1]], 10)
    assert executor.poll(attempt) == "alive"
    executor.close()


def test_jobs_that_another_studys_driver_began_after_a_look_are_asked_about_too(tmp_path):
    executor = PilotExecutor(NAME, Placing(), Scripted(), options(missing_s=0.3))  # the cluster loses them all
    executor.begin(tmp_path / "runs/jobs/other")
    for seed in range(2):
        attempt, cluster = asked_for(tmp_path, toy(seed=seed)), Scripted(JobStatus("queued", "7"))
        theirs = PilotExecutor(NAME, Placing(), cluster, options())
        theirs.submit(attempt)
        wait_for(lambda theirs=theirs: theirs.look(1) is not None and jobs_of(tmp_path)[-1].acknowledged.exists(), 10)
        theirs.close()
        wait_for(lambda attempt=attempt: executor.look(0) is not None and executor.poll(attempt) == "gone", 10)
    assert len(jobs_of(tmp_path)) == 2
    executor.close()


class SentMeanwhile(Scripted):
    """A cluster that loses every job; asked when it `is_late`, it is told of by their driver before it answers."""

    is_late, sent_at = False, float("inf")

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        answer = super().table(jobs)
        if self.is_late and self.sent_at == float("inf"):
            self.sent_at = time.monotonic()
            for job in jobs:
                job.write(job.acknowledged, **now_here())
        return answer


def test_a_job_that_another_driver_sends_late_is_not_missed_for_the_time_before(tmp_path):
    cluster = SentMeanwhile()
    executor = PilotExecutor(NAME, Placing(), cluster, options(missing_s=0.5))
    executor.begin(tmp_path / "runs/jobs/other")
    driver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    attempt = asked_for(tmp_path, toy(), driver=processes.identity(driver.pid).model_dump())
    PilotExecutor(NAME, Placing(), Scripted(), options()).submit(attempt)  # which does not send it yet
    try:
        assert executor.poll(attempt) == "alive"
        wait_for(lambda: executor.look(0) is not None and place_of(attempt).job.absence.exists(), 10)
        time.sleep(1.0)
        assert executor.poll(attempt) == "alive"
        cluster.is_late = True
        wait_for(lambda: executor.poll(attempt) == "gone", 10)
    finally:
        driver.kill()
        driver.communicate()
        executor.close()
    assert time.monotonic() - cluster.sent_at > 0.5


def test_a_job_that_could_not_be_given_its_attempt_is_never_given_another(tmp_path):
    cluster = Scripted(JobStatus("queued", "7"))
    executor = PilotExecutor(NAME, Placing(), cluster, options())
    first, second = (asked_for(tmp_path, toy(seed=seed)) for seed in range(2))
    (first.path / NOTE).mkdir()  # the disk refuses
    with pytest.raises(OSError, match="directory"):
        executor.submit(first)
    executor.submit(second)
    wait_for(lambda: executor.look(1) is not None and cluster.sent, 10)
    assert cluster.sent == [[place_of(second).job.number]]
    executor.close()


def test_however_many_stages_there_are_a_look_asks_and_sends_once(tmp_path):
    cluster = Scripted(JobStatus("queued", "7", why="Resources"))
    executor = PilotExecutor(NAME, Placing(), cluster, options(look_s=0.5, max_jobs=30))
    tries = [asked_for(tmp_path, toy(seed=seed)) for seed in range(30)]
    for attempt in tries:
        executor.submit(attempt)
    begun_at = time.monotonic()
    while time.monotonic() - begun_at < 2.0:
        executor.look(1)
        assert {executor.poll(attempt) for attempt in tries} == {"alive"}
    assert cluster.sent == [list(range(1, 31))]
    assert 2 <= cluster.num_tables <= 6
    executor.close()


def test_a_submission_with_no_answer_is_looked_up_and_not_sent_twice(tmp_path):
    cluster = Scripted(JobStatus("running", "7"), Unreachable("timed out"))  # and it has submitted all the same
    executor, attempt = scripted(tmp_path, cluster)
    notes: list[str] = []
    for _ in range(20):
        notes += executor.look(1)
        assert executor.poll(attempt) == "alive"
        time.sleep(0.1)
    assert cluster.num_submits == 1
    assert notes == [f"{NAME}: 1 job waits to be sent again: timed out"]
    executor.close()


def test_a_submission_with_no_answer_that_never_came_is_sent_again(tmp_path):
    cluster = Scripted(None, Unreachable("connection refused"))
    executor, attempt = scripted(tmp_path, cluster, missing_s=0.3)
    wait_for(lambda: executor.look(1) is not None and cluster.num_submits > 1, 10)
    assert executor.poll(attempt) == "alive"
    executor.close()


def test_a_command_that_hangs_does_not_hold_up_the_driver(tmp_path, monkeypatch):
    class Hanging(Scripted):
        def table(self, jobs: Sequence[PilotJob]) -> Table:
            time.sleep(3.0)
            raise Unreachable

    executor, attempt = scripted(tmp_path, Hanging())
    slowest = 0.0
    for _ in range(50):
        begun_at = time.monotonic()
        executor.look(1)
        executor.poll(attempt)
        slowest = max(slowest, time.monotonic() - begun_at)
        time.sleep(0.01)
    assert slowest < 1.0
    executor.close()


def test_jobs_that_wait_are_told_of_with_the_clusters_reason(tmp_path, monkeypatch):
    from ablate.execution.pilots import cluster_line

    monkeypatch.setattr(cluster_line, "WAIT_NOTE_S", 0.3)
    executor, attempt = scripted(tmp_path, Scripted(JobStatus("queued", "7", why="Resources (partition gpu)")))
    notes: list[str] = []
    wait_for(lambda: notes.extend(executor.look(1)) or notes, 10)
    assert notes == [f"{NAME}: 1 job waits: Resources (partition gpu)"]
    assert executor.poll(attempt) == "alive"
    executor.close()


def leave_unbegun(job: PilotJob) -> None:
    """Does as a pilot that has come, and is told to go before it has begun anything."""
    job.write(job.pilot, process=processes.identity().model_dump(), cluster_id="7", num_restarts=0, ends_at=None)
    assert job.hand_in(2, None)
    job.write(job.exit, why="the cluster sent SIGTERM")


def test_what_a_pilot_was_sent_away_from_before_it_began_is_no_try_but_goes_to_another_job_once(tmp_path):
    executor, attempt = scripted(tmp_path, Scripted(JobStatus("running", "7")))
    leave_unbegun(place_of(attempt).job)
    assert executor.poll(attempt) == "alive"
    assert (place_of(attempt).job, place_of(attempt).number) == (jobs_of(tmp_path)[1], 1)
    leave_unbegun(place_of(attempt).job)
    assert executor.poll(attempt) == "gone"
    assert executor.ending(attempt).failure == "preempted"
    assert len(jobs_of(tmp_path)) == 2
    executor.close()
