"""The remote example where its cluster is at its worst: out of reach, slow, saying and hearing things twice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.executors import CLUSTER, drive_on
from support.toys import chain, drive, metrics_of, ordered, ours, toy, value_of, wait_for

from ablate.core import processes
from ablate.core.errors import AblateError
from ablate.execution import watched
from ablate.execution.executors.base import supervisor_of
from ablate.execution.remote_example.cluster import DOWN, HELD, LISTED_S, Cluster, Job, Table, start_cluster
from ablate.execution.remote_example.executor import NAME, NOTE, RemoteExample, job_name
from ablate.machine.slots import Placing
from ablate.maintenance import verify
from ablate.store.attempt import Attempt
from ablate.store.store import Store


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cluster"
    monkeypatch.setenv(CLUSTER, str(folder))
    controller = start_cluster(folder)
    yield folder
    controller.terminate()
    controller.wait(10)


@pytest.fixture
def executor(cluster: Path) -> RemoteExample:
    return RemoteExample(Placing(), Cluster(cluster))


def asked_for(root: Path, **settings: object) -> Attempt:
    return ordered(root, toy(**settings), executor=NAME)


def test_its_workers_are_known_by_names_that_mean_nothing_here(tmp_path, executor):
    attempt = asked_for(tmp_path, fault="hang")
    executor.submit(attempt)
    wait_for(attempt.metrics.is_file)
    assert supervisor_of(attempt).host == "node-1"
    assert processes.contact(supervisor_of(attempt)) == "unknown"
    assert executor.poll(attempt) == "alive"
    executor.end(attempt)
    wait_for(lambda: executor.poll(attempt) == "gone", 10)
    assert ours(tmp_path / "runs") == []


def test_out_of_reach_nothing_is_known_and_what_was_said_meanwhile_arrives_later(tmp_path, cluster, executor):
    (cluster / DOWN).touch()
    attempt = asked_for(tmp_path, fault="hang")
    executor.submit(attempt)
    assert {executor.poll(attempt) for _ in range(5)} == {"unknown"}
    assert executor.describe(attempt) == f"job {job_name(attempt)}, which cannot be asked now"
    (cluster / DOWN).unlink()
    assert executor.poll(attempt) == "alive"
    wait_for(attempt.metrics.is_file)
    (cluster / DOWN).touch()
    executor.end(attempt)
    executor.end(attempt)
    assert executor.poll(attempt) == "unknown"
    (cluster / DOWN).unlink()
    wait_for(lambda: executor.poll(attempt) == "gone", 10)


def test_an_old_table_that_does_not_list_a_job_yet_says_nothing_of_it(tmp_path, cluster, executor):
    attempt, line = asked_for(tmp_path), Cluster(cluster)
    time.sleep(0.3)  # there was a table before
    executor.submit(attempt)
    tables = [line.table() for _ in range(50)]
    assert len({table.as_of for table in tables}) < 25  # asked again, the same was said
    assert tables[0].jobs_named(job_name(attempt)) == []
    assert executor.poll(attempt) == "alive"


def test_a_job_that_was_never_sent_is_gone_after_a_while_by_the_clusters_clock(tmp_path, executor):
    attempt, begun_at = asked_for(tmp_path), time.monotonic()
    assert executor.poll(attempt) == "alive"
    wait_for(lambda: executor.poll(attempt) == "gone", 10)
    assert time.monotonic() - begun_at > LISTED_S - 0.5


class Recited(Cluster):
    """A cluster whose tables are given; hears nothing."""

    def __init__(self, *tables: Table) -> None:
        self._tables = list(tables)

    def submit(self, name: str, attempt: Path) -> None:
        pass

    def table(self) -> Table:
        return self._tables.pop(0)


def test_what_tables_of_any_age_say_of_a_job_is_weighed_by_the_clusters_clock(tmp_path):
    attempt = asked_for(tmp_path)
    job = Job(number=1, name=job_name(attempt), node="node-1")

    def poll(after_s: float, *jobs: Job) -> str:
        """-> what an executor says that was made to be asked once."""
        return RemoteExample(Placing(), Recited(Table(as_of=100 + after_s, jobs=jobs))).poll(attempt)

    RemoteExample(Placing(), Recited(Table(as_of=100))).submit(attempt)
    assert poll(LISTED_S) == "alive"  # it may be on its way
    assert poll(LISTED_S + 0.1) == "gone"  # none came
    RemoteExample(Placing(), Recited(Table(as_of=200))).submit(attempt)
    assert poll(100.3, job) == "alive"
    assert poll(100.2) == "alive"  # an older table
    assert poll(100.4) == "gone"  # it was there and is not any more
    assert poll(999, job.model_copy(update={"is_over": True})) == "gone"


def test_a_job_that_the_cluster_has_forgotten_is_gone_for_whoever_asks(tmp_path, cluster, executor):
    (cluster / HELD).touch()
    attempt = asked_for(tmp_path, steps=1)
    executor.submit(attempt)
    wait_for(lambda: executor.describe(attempt) == "job 1 on node-1")
    time.sleep(LISTED_S + 1)
    assert RemoteExample(Placing(), Cluster(cluster)).poll(attempt) == "alive"  # it waits, however long
    (cluster / HELD).unlink()
    wait_for(lambda: attempt.exit)
    wait_for(lambda: "does not list" in executor.describe(attempt), 10)
    assert RemoteExample(Placing(), Cluster(cluster)).poll(attempt) == "gone"
    assert executor.poll(attempt) == "gone"


def test_what_is_noted_of_a_job_is_no_damage_to_its_attempt(tmp_path, executor):
    attempt = asked_for(tmp_path, steps=1)
    executor.submit(attempt)
    wait_for(lambda: attempt.exit)
    (attempt.path / NOTE).write_text('{"listed_by": 7}')  # a look that came late
    assert verify.verify(verify.parts(Store(tmp_path))) == []


def test_a_note_that_cannot_be_read_is_written_anew(tmp_path, executor):
    attempt = asked_for(tmp_path)
    (attempt.path / NOTE).write_text("{")
    assert executor.poll(attempt) == "alive"
    wait_for(lambda: executor.poll(attempt) == "gone", 10)


@pytest.mark.parametrize("patience_s", [None, 2.0])
def test_an_outage_while_a_job_is_queued_leaves_one_job_at_most(tmp_path, cluster, monkeypatch, patience_s):
    """Also where no patience is so long: then the first is ended before the next is sent."""
    monkeypatch.setattr(watched, "LOST_S", 0.3)
    if patience_s:
        monkeypatch.setattr(watched, "OUTAGE_S", patience_s)
    (cluster / HELD).touch()
    stage = toy(steps=5)

    def weather() -> None:
        wait_for(lambda: Cluster(cluster).table().jobs)
        (cluster / DOWN).touch()
        time.sleep(3.0)
        (cluster / DOWN).unlink()
        last = 2 if patience_s else 1
        wait_for(lambda: any(job.number == last for job in Cluster(cluster).table().jobs))
        (cluster / HELD).unlink()

    cloud = threading.Thread(target=weather)
    cloud.start()
    assert drive_on(NAME, tmp_path, [stage]).exit_code == 0
    cloud.join()
    tries = sorted(path.name for path in tmp_path.glob("runs/attempts/*/*"))
    assert tries == (["1", "2"] if patience_s else ["1"])
    assert len(list(tmp_path.glob("runs/attempts/*/*/worker.json"))) == 1


def test_an_end_heard_again_does_not_touch_the_next_try(tmp_path, executor):
    first = asked_for(tmp_path, fault="hang")
    executor.submit(first)
    wait_for(first.metrics.is_file)
    executor.end(first)
    second = asked_for(tmp_path, steps=30, step_s=0.02)
    executor.submit(second)
    executor.end(first)
    wait_for(lambda: second.exit)
    assert second.exit["failure"] == "ok"


def test_cards_of_this_machine_are_refused(cluster):
    with pytest.raises(AblateError, match="--gpus names cards of this machine"):
        RemoteExample(Placing(gpus=("0",)), Cluster(cluster)).slots()
    assert len(RemoteExample(Placing(num_jobs=5), Cluster(cluster)).slots()) == 5


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
    executor.submit(ordered(tmp_path, stage, executor=NAME, driver=gone.model_dump()))
    release = threading.Timer(LISTED_S + 1, (cluster / HELD).unlink)
    release.start()
    lines: list[str] = []
    assert drive(tmp_path, [stage], write=lines.append).exit_code == 0
    release.join()
    assert any("found at work" in line for line in lines)
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1"]
