"""Pilots on a cluster at its worst, one fault at a time: begun twice, cut off, said to be over while they run."""

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.processes import children, command_line, is_alive
from support.toys import ordered, ours, toy, wait_for
from support.worst_cluster import CALM, HELD, PR_SET_CHILD_SUBREAPER, WorstCluster, happen, jobs_left, start_worst
from support.worst_executor import CLUSTER, NAME, SEED, cluster_executor, run_pilot

from ablate.core import disk
from ablate.execution.pilots.pilot_job import PilotJob, claim_job
from ablate.execution.profiles import Profile
from ablate.store.attempt import Attempt


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that says and does what is true, unless a test asks for more."""
    folder = tmp_path / "cluster"
    monkeypatch.setenv(CLUSTER, str(folder))
    monkeypatch.setenv(SEED, "0")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    controller = start_worst(folder, 0, run_pilot)
    (folder / CALM).touch()
    yield folder
    os.kill(controller, signal.SIGTERM)
    os.waitpid(controller, 0)
    for left in ours(tmp_path):
        left.kill()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def job_with(root: Path, **settings: object) -> tuple[PilotJob, Attempt]:
    """-> a job, not sent yet, whose pilot is to work on a toy."""
    job = claim_job(root / "runs" / "jobs" / "toys")
    wishes = {"idle_s": 60.0, "margin_s": 0.0, "device": "cpu", "fork_server": True}
    job.write(job.request, **Profile(NAME, NAME).record(), **wishes)
    attempt = ordered(root, toy(**settings), executor=NAME)
    assert job.hand_in(1, attempt)
    return job, attempt


def workers_of(attempt: Attempt) -> list[int]:
    """-> processes that work in its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(attempt.path)) and is_alive(process):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_pilot_whose_job_counts_as_over_ends_what_it_is_at_and_leaves(tmp_path, cluster):
    job, attempt = job_with(tmp_path, fault="hang")
    WorstCluster(cluster, 0).submit([job])
    wait_for(attempt.metrics.is_file)
    assert workers_of(attempt)
    disk.create(job.over, "{}")
    wait_for(lambda: jobs_left(cluster) == [], 20)
    assert workers_of(attempt) == []
    assert not job.exit.exists()


def test_of_two_pilots_that_begin_one_job_in_the_same_instant_one_works_and_the_other_leaves(tmp_path, cluster):
    job, attempt = job_with(tmp_path, fault="hang")
    line = WorstCluster(cluster, 0)
    line.submit([job])
    line.submit([job])
    wait_for(attempt.metrics.is_file)
    wait_for(lambda: len(list((cluster / "logs").iterdir())) == 2 and num_running() == 1, 20)
    assert job.beat.at == 1
    line.cancel([job])
    wait_for(lambda: jobs_left(cluster) == [], 20)


def num_running() -> int:
    """-> how many jobs have a pilot: the table tells of one a token."""
    me = psutil.Process()
    forks = [child for child in children(me) if command_line(child) == me.cmdline()]  # controllers
    return sum(len(children(fork)) for fork in forks)


def test_a_pilot_that_was_cut_off_leaves_once_its_job_has_begun_elsewhere(tmp_path, cluster):
    job, attempt = job_with(tmp_path, fault="hang")
    WorstCluster(cluster, 0).submit([job])
    wait_for(attempt.metrics.is_file)
    happen(cluster, "cut off and requeued")
    wait_for(lambda: job.record(job.pilot).get("num_restarts") == 1, 30)
    wait_for(lambda: workers_of(attempt) == [], 20)
    wait_for(lambda: not any("lost nodes" in line for line in jobs_left(cluster)), 20)
    WorstCluster(cluster, 0).cancel([job])
    wait_for(lambda: jobs_left(cluster) == [], 20)


def test_a_stage_whose_job_never_begins_is_done_by_a_pilot_that_is_idle(tmp_path, cluster):
    executor = cluster_executor()
    first, second = (ordered(tmp_path, toy(seed=seed, steps=20, step_s=0.05), executor=NAME) for seed in (1, 2))
    executor.submit(first)
    executor.look(1)
    wait_for(first.metrics.is_file)
    (cluster / HELD).touch()
    executor.submit(second)
    wait_for(lambda: executor.look(0) is not None and second.exit)
    assert second.exit["failure"] == "ok"
    jobs = [PilotJob(path) for path in sorted((tmp_path / "runs/jobs/toys").iterdir())]
    wait_for(lambda: executor.look(0) is not None and all(job.stop_request.exists() for job in jobs))
    (cluster / HELD).unlink()
    executor.close()
    wait_for(lambda: jobs_left(cluster) == [], 20)
