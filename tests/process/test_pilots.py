"""Pilot jobs: what shares one, when one leaves, who goes on with one, and what is gone with one."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.executors import QUICK, drive_on
from support.pilots import asked_for, executor_of, jobs_of
from support.toys import chain, checkpointed, drive, metrics_of, ordered, ours, quiet, toy, wait_for

from ablate.core import disk
from ablate.core.failures import Ending
from ablate.execution import attempts
from ablate.execution.driver import driving
from ablate.execution.executors.base import python, supervisor_of
from ablate.execution.executors.launch import ForkServer
from ablate.execution.fleet import fleet_of, fleet_with
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.pilot_job import PilotJob, claim_job
from ablate.execution.pilots.pilot_pool import place_of
from ablate.execution.profiles import Profile
from ablate.execution.remote_example.cluster import HELD, ExampleCluster
from ablate.execution.remote_example.executor import NAME
from ablate.execution.stop import STOP_S, stop_study
from ablate.machine.slots import Placing
from ablate.maintenance import garbage
from ablate.maintenance.garbage import References
from ablate.store import layout
from ablate.store.attempt import Attempt
from ablate.store.store import Store


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    for left in ours(tmp_path):
        left.kill()


# one pilot, by hand


def job_with(root: Path, *tries: Attempt, **wishes: object) -> PilotJob:
    """-> a job whose inbox holds these, as a driver would write it."""
    job = claim_job(root / "runs/jobs/toys")
    job.write(job.request, **({"idle_s": 0.0, "margin_s": 0.0, "fork_server": False, "device": "cpu"} | wishes))
    for number, attempt in enumerate(tries, 1):
        assert job.hand_in(number, attempt)
    return job


def pilot(job: PilotJob, **variables: str) -> "subprocess.Popen[bytes]":
    command = python("ablate.execution.pilots.pilot", str(job.path))
    return subprocess.Popen(command, env=os.environ | variables, start_new_session=True)


def test_a_pilot_works_on_one_attempt_after_another_and_leaves_when_it_has_none(tmp_path):
    tries = [ordered(tmp_path, toy(steps=3, seed=number)) for number in range(3)]
    job = job_with(tmp_path, *tries)
    assert pilot(job).wait(60) == 0
    assert [attempt.exit["failure"] for attempt in tries] == ["ok"] * 3
    assert job.record(job.exit) == {"why": "it had no work for a while"}
    ends = [attempt.exit["at"] for attempt in tries]
    assert ends == sorted(ends)
    assert not job.hand_in(4, tries[0])  # whoever comes too late knows it


def test_what_comes_into_the_inbox_in_the_moment_of_leaving_is_done_or_refused_never_forgotten(tmp_path):
    done, refused = 0, 0
    for number in range(3):
        first = ordered(tmp_path, toy(steps=1, seed=2 * number))
        last = ordered(tmp_path, toy(steps=1, seed=2 * number + 1))
        job = job_with(tmp_path, first)
        run = pilot(job)
        wait_for(lambda first=first: first.exit)
        time.sleep(0.15 * number)
        is_taken = job.hand_in(2, last)
        assert run.wait(60) == 0
        assert bool(last.exit) == is_taken
        done, refused = done + is_taken, refused + (not is_taken)
    assert done >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_of_the_cluster_saves_what_is_at_work_and_nothing_more_is_begun(tmp_path, number):
    at_work = ordered(tmp_path, toy(steps=1000, step_s=0.02))
    next_ = ordered(tmp_path, toy(steps=1, seed=7))
    job = job_with(tmp_path, at_work, next_)
    run = pilot(job)
    wait_for(lambda: checkpointed(tmp_path))
    run.send_signal(number)
    assert run.wait(30) == 0
    assert at_work.exit["failure"] == "preempted"
    assert list(at_work.checkpoints.glob("step-*/manifest.json"))
    assert (next_.exit, next_.worker.exists()) == (None, False)
    assert number.name in job.record(job.exit)["why"]


def test_a_pilot_whose_time_runs_low_saves_in_time_and_leaves(tmp_path):
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.02), grace_s=1.0)
    job = job_with(tmp_path, attempt)
    run = pilot(job, SLURM_JOB_END_TIME=str(time.time() + 20.0))
    assert run.wait(40) == 0
    assert attempt.exit["failure"] == "preempted"
    assert job.record(job.pilot)["ends_at"] > time.time()


def test_a_pilot_with_too_little_time_left_takes_nothing(tmp_path):
    job = job_with(tmp_path, margin_s=3600.0, time_s=600.0, idle_s=60.0)
    assert pilot(job).wait(30) == 0
    assert job.record(job.exit) == {"why": "its time is nearly over"}


def test_a_job_begun_anew_never_goes_on_with_what_an_earlier_turn_was_at(tmp_path):
    first, second = (ordered(tmp_path, toy(steps=400, step_s=0.02, seed=seed)) for seed in range(2))
    job = job_with(tmp_path, first)
    run = pilot(job, SLURM_JOB_ID="7")
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    wait_for(lambda: not psutil.pid_exists(supervisor_of(first).pid), 10)  # it ends with its pilot
    job.hand_in(2, second)
    again = pilot(job, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    wait_for(second.worker.exists)
    assert place_gone(job, 1)
    assert (job.record(job.pilot)["cluster_id"], job.record(job.pilot)["num_restarts"]) == ("7", 1)
    again.terminate()
    assert again.wait(30) == 0
    assert first.exit is None
    assert second.exit["failure"] == "preempted"


def place_gone(job: PilotJob, number: int) -> bool:
    beat = job.beat
    return beat.num_taken >= number and beat.at != number


def test_a_job_that_the_cluster_starts_twice_has_one_pilot(tmp_path):
    attempt = ordered(tmp_path, toy(steps=200, step_s=0.02))
    job = job_with(tmp_path, attempt)
    first = pilot(job)
    wait_for(attempt.worker.exists)
    second = pilot(job)
    assert second.wait(30) == 0
    assert first.poll() is None
    assert first.wait(60) == 0
    assert attempt.exit["failure"] == "ok"


def test_a_kill_request_ends_what_it_names_and_the_pilot_goes_on(tmp_path):
    hung, next_ = ordered(tmp_path, toy(fault="hang")), ordered(tmp_path, toy(steps=3))
    job = job_with(tmp_path, hung, next_)
    run = pilot(job)
    wait_for(hung.metrics.is_file)
    disk.write_volatile(job.kill_request(1), "")
    assert run.wait(60) == 0
    assert hung.exit is None
    assert next_.exit["failure"] == "ok"


def test_a_pilot_imports_nothing_that_a_stage_needs(tmp_path):
    code = (
        "import sys, ablate.execution.pilots.pilot; print([n for n in ('torch', 'numpy', 'ray') if n in sys.modules])"
    )
    command = [*python("timeit")[:2], "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_disk_that_is_away_for_a_moment_ends_no_pilot(tmp_path):
    code = """
import errno, sys
from pathlib import Path
from ablate.execution.pilots.pilot import Pilot
from ablate.execution.pilots.pilot_job import PilotJob
looks = []
class OnSuchADisk(PilotJob):
    @property
    def over(self):
        looks.append(1)
        if len(looks) in (2, 3):
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().over
Pilot(OnSuchADisk(Path(sys.argv[1]))).run()
assert len(looks) > 3
"""
    attempt = ordered(tmp_path, toy(steps=200, step_s=0.02))
    job = job_with(tmp_path, attempt)
    run = subprocess.run(
        [*python("timeit")[:2], "-c", code, str(job.path)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert attempt.exit["failure"] == "ok"


@pytest.mark.parametrize(("is_assigned", "expected"), [(True, "GPU-of-this-job"), (False, "")])
def test_the_card_that_a_cluster_assigned_reaches_stages_that_are_forked(monkeypatch, is_assigned, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-this-job")
    server = ForkServer(has_assigned_card=is_assigned)
    try:
        assert psutil.Process(server._process.pid).environ()["CUDA_VISIBLE_DEVICES"] == expected
    finally:
        server.close()


# many of them


def test_short_stages_share_jobs_and_none_is_left_when_nothing_waits(tmp_path, cluster):
    stages = [toy(steps=2, seed=seed) for seed in range(8)]
    assert drive_on(NAME, tmp_path, stages).exit_code == 0
    assert len(jobs_of(tmp_path)) == QUICK["max_jobs"]
    wait_for(lambda: all(job.exit.exists() for job in jobs_of(tmp_path)), 10)
    whys = {job.record(job.exit)["why"] for job in jobs_of(tmp_path)}
    assert whys == {"there is no more work for it"}
    wait_for(lambda: ours(tmp_path / "runs") == [], 10)


def test_a_second_driver_hands_work_to_the_first_ones_pilots(tmp_path, cluster):
    first = executor_of(cluster, idle_s=30.0)
    attempt = asked_for(tmp_path, toy(steps=40, step_s=0.05))
    first.submit(attempt)
    first.look(1)
    wait_for(attempt.worker.exists)
    first.close()  # as a driver that is gone: its worker goes on
    wait_for(lambda: attempt.exit)
    second = executor_of(cluster)
    another = asked_for(tmp_path, toy(steps=2, seed=1))
    second.submit(another)
    second.look(1)
    wait_for(lambda: another.exit)
    assert [place_of(one) for one in (attempt, another)] == [(jobs_of(tmp_path)[0], 1), (jobs_of(tmp_path)[0], 2)]
    wait_for(lambda: second.look(0) is not None and jobs_of(tmp_path)[0].exit.exists(), 10)
    second.close()


def test_a_job_that_an_administrator_begins_anew_loses_what_it_was_at_and_the_stage_goes_on(tmp_path, cluster):
    (stage,) = chain(1, steps=100, step_s=0.03)
    with driving(Store(tmp_path), "toys", executor_of(cluster), quiet()) as driver:
        import threading

        def begin_anew() -> None:
            wait_for(lambda: checkpointed(tmp_path))
            ExampleCluster(cluster).requeue(jobs_of(tmp_path))

        thread = threading.Thread(target=begin_anew)
        thread.start()
        assert driver.run([stage], lambda stage: 1.0).exit_code == 0
        thread.join()
    first, second = Store(tmp_path).attempts(stage.key12)
    assert first.exit["failure"] == "preempted"
    assert second.exit["failure"] == "ok"
    assert metrics_of(tmp_path, stage) == list(range(1, 101))


def test_what_an_idle_pilot_took_to_its_grave_is_handed_to_another_without_a_failure(tmp_path, cluster):
    executor = executor_of(cluster, idle_s=30.0)
    first = asked_for(tmp_path, toy(steps=1))
    executor.submit(first)
    executor.look(1)
    wait_for(lambda: first.exit)
    (job,) = jobs_of(tmp_path)
    os.kill(job.record(job.pilot)["process"]["pid"], signal.SIGKILL)
    second = asked_for(tmp_path, toy(steps=1, seed=1))
    executor.submit(second)
    wait_for(lambda: executor.look(1) is not None and executor.poll(second) == "gone", 20)
    assert second.exit["failure"] == "ok"
    assert place_of(second).job == jobs_of(tmp_path)[1]
    executor.look(0)
    executor.close()


def test_a_stage_whose_job_queues_is_done_by_a_pilot_that_is_idle_and_the_job_is_not_needed(tmp_path, cluster):
    executor = executor_of(cluster, idle_s=30.0)
    first, second = (asked_for(tmp_path, toy(steps=30, step_s=0.05, seed=seed)) for seed in range(2))
    executor.submit(first)
    executor.look(2)
    wait_for(first.worker.exists)
    (cluster / HELD).touch()  # from now on jobs wait
    executor.submit(second)
    assert place_of(second).job == jobs_of(tmp_path)[1]
    wait_for(lambda: executor.look(0) is not None and second.exit, 20)
    assert second.exit["failure"] == "ok"
    assert place_of(second).job == jobs_of(tmp_path)[0]
    assert executor.poll(second) == "gone"
    wait_for(lambda: executor.look(0) is not None and all(job.is_closed for job in jobs_of(tmp_path)), 20)
    executor.close()
    (cluster / HELD).unlink()
    wait_for(lambda: ours(tmp_path / "runs") == [], 10)


# other drivers, other profiles


def test_pilots_that_idle_in_one_round_of_a_run_are_there_for_the_next(tmp_path, cluster):
    first = [toy(steps=100, step_s=0.03), toy(steps=1, seed=1)]
    second = [toy(steps=20, step_s=0.05, seed=seed) for seed in (2, 3)]
    with driving(Store(tmp_path), "toys", executor_of(cluster, idle_s=60.0), quiet()) as driver:
        assert driver.run(first, lambda _: 1.0, is_last=False).exit_code == 0
        assert driver.run(second, lambda _: 1.0).exit_code == 0
    assert [len([entry for entry in job.entries() if entry.attempt]) for job in jobs_of(tmp_path)] == [2, 2]


def test_a_driver_that_leaves_its_study_to_another_leaves_it_its_idle_pilots_too(tmp_path, cluster):
    executor, attempt = executor_of(cluster, idle_s=60.0), asked_for(tmp_path, toy(steps=1))
    executor.submit(attempt)
    executor.look(1)
    wait_for(lambda: attempt.exit)
    fleet = fleet_with(executor)
    fleet.leave()
    fleet.close()
    (job,) = jobs_of(tmp_path)
    assert not job.stop_request.exists()
    with driving(Store(tmp_path), "toys", executor_of(cluster), quiet()) as driver:
        assert driver.run([toy(steps=1, seed=1)], lambda _: 1.0).exit_code == 0
    assert jobs_of(tmp_path) == [job]


def profile(name: str, **changed: object) -> Profile:
    return Profile(name, NAME, {**QUICK, "idle_s": 60.0, **changed})


def begin_with(root: Path, one: Profile, *tries: Attempt) -> PilotExecutor:
    """-> a driver's executor for a profile, which has handed in attempts."""
    (place, _) = fleet_of([one], Placing(uses_fork_server=False)).places
    place.executor.begin(root / "runs/jobs/toys")
    for attempt in tries:
        place.executor.submit(attempt)
    place.executor.look(1)
    return place.executor


def test_a_pilot_of_a_profile_that_was_edited_since_gets_no_more_work_and_goes_after_what_it_is_at(tmp_path, cluster):
    before, now = profile("a100", threads=1), profile("a100", threads=2)
    stages = chain(2, steps=60, step_s=0.05)  # the first pilot idles when the second stage is ready
    attempt = ordered(tmp_path, stages[0], **before.record())
    earlier = begin_with(tmp_path, before, attempt)
    wait_for(attempt.worker.exists)
    earlier.close()
    with driving(Store(tmp_path), "toys", fleet_of([now], Placing(uses_fork_server=False)), quiet()) as driver:
        assert driver.run(stages, lambda _: 1.0).exit_code == 0
    old, new = jobs_of(tmp_path)
    wait_for(lambda: old.exit.exists() and new.exit.exists(), 20)
    assert attempt.exit["failure"] == "ok"
    assert [entry.attempt for entry in old.entries()] == [attempt.path.relative_to(tmp_path).as_posix(), None]
    assert new.profile == now


def leave_jobs(root: Path, cluster: Path, gone: Profile, *, is_withdrawn: bool) -> Attempt:
    """A driver, killed, of which a pilot is idle and a job waits in the queue. -> what that was to do."""
    pid = os.fork()
    if pid == 0:
        try:
            _drive_until_killed(root, cluster, gone, is_withdrawn=is_withdrawn)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return Store(root).attempts(toy(seed=1).key12)[0]


def _drive_until_killed(root: Path, cluster: Path, gone: Profile, *, is_withdrawn: bool) -> None:
    at_work = ordered(root, toy(steps=40, step_s=0.05), **gone.record())
    executor = begin_with(root, gone, at_work)
    wait_for(at_work.worker.exists)
    (cluster / HELD).touch()
    queued = ordered(root, toy(seed=1), **gone.record())
    executor.submit(queued)
    executor.look(1)
    wait_for(lambda: '"queued"' in (cluster / "table.json").read_text())
    if is_withdrawn:
        attempts.withdraw(queued, Ending("cancelled", "by hand"))
    wait_for(lambda: at_work.exit)
    os.kill(os.getpid(), signal.SIGKILL)


def none_is_left(root: Path, cluster: Path) -> None:
    wait_for(lambda: all(job.is_closed for job in jobs_of(root)), 20)
    wait_for(lambda: '"queued"' not in (cluster / "table.json").read_text(), 10)
    (cluster / HELD).unlink()
    wait_for(lambda: ours(root / "runs") == [], 10)


def test_jobs_of_a_profile_that_a_run_is_without_go_when_they_have_no_work(tmp_path, cluster):
    leave_jobs(tmp_path, cluster, profile("gone"), is_withdrawn=True)
    assert drive(tmp_path, [toy(steps=40, step_s=0.05)]).exit_code == 0
    none_is_left(tmp_path, cluster)


def test_stop_ends_what_a_killed_driver_has_in_the_queue_at_once_and_its_idle_pilots_too(tmp_path, cluster):
    queued, begun_at = leave_jobs(tmp_path, cluster, profile("gone"), is_withdrawn=False), time.monotonic()
    assert stop_study(Store(tmp_path), "toys") == 1
    assert time.monotonic() - begun_at < STOP_S / 2
    assert queued.exit["failure"] == "cancelled"
    none_is_left(tmp_path, cluster)


# stopped, collected, verified


def test_after_a_stop_no_job_is_left_in_the_queue(tmp_path, cluster):
    (cluster / HELD).touch()
    executor = executor_of(cluster)
    attempt = asked_for(tmp_path, toy())
    executor.submit(attempt)
    executor.look(1)
    wait_for(lambda: '"queued"' in (cluster / "table.json").read_text())
    attempts.withdraw(attempt, Ending("cancelled", "stopped before it had begun"))
    executor.end(attempt)
    executor.close()
    wait_for(lambda: '"queued"' not in (cluster / "table.json").read_text(), 5)
    (cluster / HELD).unlink()
    (job,) = jobs_of(tmp_path)
    assert job.is_closed
    assert not job.pilot.exists()


def test_jobs_that_are_over_are_collected_but_the_last_whose_number_is_not_given_again(tmp_path):
    for seed in range(2):
        attempt = ordered(tmp_path, toy(steps=1, seed=seed))
        assert pilot(job_with(tmp_path, attempt)).wait(60) == 0
    claim_job(tmp_path / "runs/jobs/toys")  # its driver was killed then
    hung = ordered(tmp_path, toy(seed=2))
    job_with(tmp_path, hung)  # it waits in a queue
    job_with(tmp_path)
    store = Store(tmp_path)
    pieces = garbage.find(store, References(frozenset()), 0.0)
    assert [piece.path.name for piece in pieces if piece.what == "job"] == ["1", "2", "3"]
    garbage.remove(store, pieces, References(frozenset()), lambda: References(frozenset()))
    assert [job.number for job in jobs_of(tmp_path)] == [4, 5]
    assert claim_job(tmp_path / "runs/jobs/toys").number == 6


def test_a_folder_of_jobs_is_nothing_strange_and_what_is_no_job_in_it_is_set_aside(tmp_path):
    assert pilot(job_with(tmp_path, ordered(tmp_path, toy(steps=1)))).wait(60) == 0
    store = Store(tmp_path)
    assert layout.strange(store.runs) == []
    (job,) = jobs_of(tmp_path)
    job.heartbeat.unlink()
    job.heartbeat.symlink_to("/dev/null")
    (tmp_path / "runs/jobs/toys/7").write_text("no folder")
    assert len(layout.mend(store)) == 2
    assert layout.strange(store.runs) == []
    assert [one.number for one in jobs_of(tmp_path)] == [1]
