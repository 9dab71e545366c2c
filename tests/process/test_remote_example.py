"""Pilot jobs on a cluster at its worst: out of reach, slow, saying and hearing things twice, forgetting."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.executors import QUICK, drive_on
from support.pilots import executor_of, jobs_of
from support.toys import chain, drive, metrics_of, ordered, ours, toy, value_of, wait_for

from ablate.core import processes
from ablate.core.errors import AblateError
from ablate.execution import watched
from ablate.execution.executors.base import supervisor_of
from ablate.execution.pilots.cluster import JobStatus, Table
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.pilots.pilot_pool import NOTE, place_of
from ablate.execution.remote_example.cluster import DOWN, HELD, LISTED_S, ExampleCluster
from ablate.execution.remote_example.executor import NAME
from ablate.machine.slots import Placing
from ablate.maintenance import verify
from ablate.store.attempt import Attempt
from ablate.store.store import Store

OPTIONS = PilotOptions.model_validate(QUICK)


@pytest.fixture
def executor(cluster: Path) -> Iterator[PilotExecutor]:
    it = executor_of(cluster)
    yield it
    it.close()


def asked_for(root: Path, **settings: object) -> Attempt:
    return ordered(root, toy(**settings), executor=NAME)


def handed(executor: PilotExecutor, attempt: Attempt) -> Attempt:
    executor.submit(attempt)
    executor.look(1)
    return attempt


def test_its_workers_are_known_by_names_that_mean_nothing_here(tmp_path, executor):
    attempt = handed(executor, asked_for(tmp_path, fault="hang"))
    wait_for(attempt.metrics.is_file)
    assert supervisor_of(attempt).host == "node-1"
    assert processes.contact(supervisor_of(attempt)) == "unknown"
    assert executor.poll(attempt) == "alive"
    executor.end(attempt)
    wait_for(lambda: executor.poll(attempt) == "gone", 10)
    wait_for(lambda: ours(tmp_path / "runs") == [], 10)


def test_out_of_reach_nothing_is_known_and_what_was_said_meanwhile_arrives_later(tmp_path, cluster, executor):
    (cluster / DOWN).touch()
    attempt = handed(executor, asked_for(tmp_path, fault="hang"))
    wait_for(lambda: executor.poll(attempt) == "unknown", 5)
    assert {executor.poll(attempt) for _ in range(5)} == {"unknown"}
    (cluster / DOWN).unlink()
    wait_for(attempt.metrics.is_file)
    assert executor.poll(attempt) == "alive"
    assert len(jobs_of(tmp_path)) == 1
    (cluster / DOWN).touch()
    wait_for(lambda: executor.poll(attempt) == "unknown", 5)
    executor.end(attempt)
    executor.end(attempt)
    wait_for(lambda: executor.poll(attempt) == "gone", 10)  # by its pilot, which needs no cluster for that
    (cluster / DOWN).unlink()


def test_a_job_that_no_table_lists_is_gone_after_a_while_and_not_before(tmp_path, cluster):
    gone = processes.identity().model_copy(update={"boot": "an earlier one"})
    attempt = ordered(tmp_path, toy(), executor=NAME, driver=gone.model_dump())
    unheard = PilotExecutor(NAME, Placing(), Recited(Table(0.0, {})), OPTIONS)
    unheard.submit(attempt)  # and killed before it could send anything
    begun_at = time.monotonic()
    assert executor_of(cluster).poll(attempt) == "alive"
    wait_for(lambda: executor_of(cluster).poll(attempt) == "gone", 10)
    assert time.monotonic() - begun_at > OPTIONS.missing_s


class Recited:
    """A cluster whose tables are given; hears nothing."""

    def __init__(self, *tables: Table) -> None:
        self._tables = list(tables)

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        pass

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        pass

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        return self._tables.pop(0)


def test_what_tables_of_any_age_say_of_a_job_is_weighed_by_when_they_were_asked_for(tmp_path):
    attempt = asked_for(tmp_path)
    PilotExecutor(NAME, Placing(), Recited(), OPTIONS).submit(attempt)
    job, sent_at = place_of(attempt).job, 100.0
    job.write(job.acknowledged, boot=processes.identity().boot, at=sent_at)

    def poll(after_s: float, status: JobStatus | None = None) -> str:
        """-> what an executor says that was made to be asked once."""
        table = Table(sent_at + after_s, {job.token: status} if status else {})
        return PilotExecutor(NAME, Placing(), Recited(table), OPTIONS).poll(attempt)

    assert poll(-1.0) == "alive"  # asked before it was sent
    assert poll(1.0) == "alive"  # it may be on its way
    assert poll(0.5) == "alive"  # an older table
    assert poll(1.4) == "alive"
    assert poll(1.9, status=JobStatus("queued", "7")) == "alive"
    assert poll(2.1) == "alive"  # it was there, and is not any more
    job.heartbeat.write_text("[7, 0, null]")
    assert poll(9.0) == "alive"  # but its heart beats
    assert poll(9.9) == "alive"
    assert poll(10.1) == "gone"
    assert poll(99.0, status=JobStatus("over", "7")) == "gone"


def test_a_job_that_waits_is_alive_however_long_and_gone_for_whoever_asks_once_it_is_forgotten(
    tmp_path, cluster, executor
):
    (cluster / HELD).touch()
    attempt = handed(executor, asked_for(tmp_path, steps=1))
    wait_for(lambda: executor.describe(attempt) == "job 1 on node-1")
    time.sleep(LISTED_S + 1)
    assert executor_of(cluster).poll(attempt) == executor.poll(attempt) == "alive"
    (cluster / HELD).unlink()
    wait_for(lambda: attempt.exit)
    assert executor_of(cluster).poll(attempt) == executor.poll(attempt) == "gone"


def test_what_is_noted_of_a_job_is_no_damage_to_its_attempt(tmp_path, executor):
    attempt = handed(executor, asked_for(tmp_path, steps=1))
    wait_for(lambda: attempt.exit)
    (attempt.path / NOTE).write_text('{"places": [["runs/jobs/toys/7", 7]]}')
    assert verify.verify(verify.parts(Store(tmp_path))) == []


@pytest.mark.parametrize("patience_s", [None, 2.0])
def test_an_outage_while_a_job_is_queued_leaves_one_worker_at_most(tmp_path, cluster, monkeypatch, patience_s):
    """Also where no patience is so long: then the first is ended before the next is sent."""
    monkeypatch.setattr(watched, "LOST_S", 0.3)
    if patience_s:
        monkeypatch.setattr(watched, "OUTAGE_S", patience_s)
    (cluster / HELD).touch()
    stage = toy(steps=5)

    def weather() -> None:
        wait_for(lambda: '"number":1' in (cluster / "table.json").read_text())
        (cluster / DOWN).touch()
        time.sleep(3.0)
        (cluster / DOWN).unlink()
        wait_for(lambda: f'"number":{2 if patience_s else 1}' in (cluster / "table.json").read_text())
        (cluster / HELD).unlink()

    cloud = threading.Thread(target=weather)
    cloud.start()
    assert drive_on(NAME, tmp_path, [stage]).exit_code == 0
    cloud.join()
    tries = sorted(path.name for path in tmp_path.glob("runs/attempts/*/*"))
    assert (len(tries) > 1) if patience_s else (tries == ["1"])
    assert len(list(tmp_path.glob("runs/attempts/*/*/worker.json"))) == 1


def test_an_end_heard_again_does_not_touch_the_next_try(tmp_path, executor):
    first = handed(executor, asked_for(tmp_path, fault="hang"))
    wait_for(first.metrics.is_file)
    executor.end(first)
    wait_for(lambda: executor.poll(first) == "gone", 10)
    second = handed(executor, asked_for(tmp_path, steps=30, step_s=0.02))
    executor.end(first)
    wait_for(lambda: second.exit)
    assert second.exit["failure"] == "ok"


def test_cards_of_this_machine_are_refused(cluster):
    with pytest.raises(AblateError, match="--gpus names cards of this machine"):
        PilotExecutor(NAME, Placing(gpus=("0",)), ExampleCluster(cluster), OPTIONS).slots()
    assert len(executor_of(cluster).slots()) == OPTIONS.max_jobs


@pytest.mark.parametrize("seed", range(2))
def test_a_study_comes_to_its_end_whatever_the_cluster_does(tmp_path, cluster, seed):
    is_over = threading.Event()

    def disturb() -> None:
        while not is_over.wait(0.4 + 0.3 * seed):
            (cluster / DOWN).touch()
            is_over.wait(0.6)
            (cluster / DOWN).unlink()

    weather = threading.Thread(target=disturb)
    weather.start()
    try:
        stages = chain(3, steps=30, step_s=0.02)
        assert drive_on(NAME, tmp_path, stages).exit_code == 0
    finally:
        is_over.set()
        weather.join()
    assert [metrics_of(tmp_path, stage) for stage in stages] == [list(range(1, 31))] * 3
    assert len(list(tmp_path.glob("runs/attempts/*/*"))) == 3


def test_a_worker_killed_on_its_node_is_tried_again(tmp_path, cluster):
    stages = chain(1, steps=60, step_s=0.03)

    def kill_once() -> None:
        attempt = tmp_path / "runs/attempts" / stages[0].key12 / "1"
        wait_for(lambda: list(attempt.glob("checkpoints/step-*/manifest.json")))
        os.kill(supervisor_of(Attempt(attempt)).pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_once)
    killer.start()
    assert drive_on(NAME, tmp_path, stages).exit_code == 0
    killer.join()
    assert value_of(tmp_path, stages[0]) > 0
    assert [path.name for path in sorted(tmp_path.glob("runs/attempts/*/*"))] == ["1", "2"]


def test_a_run_on_this_machine_waits_for_a_job_in_the_clusters_queue_whose_driver_is_gone(tmp_path, cluster, executor):
    (cluster / HELD).touch()
    gone = processes.identity().model_copy(update={"boot": "an earlier one"})
    stage = toy(steps=5)
    handed(executor, ordered(tmp_path, stage, executor=NAME, driver=gone.model_dump()))
    release = threading.Timer(LISTED_S + 1, (cluster / HELD).unlink)
    release.start()
    lines: list[str] = []
    assert drive(tmp_path, [stage], write=lines.append).exit_code == 0
    release.join()
    assert any("found at work" in line for line in lines)
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1"]
