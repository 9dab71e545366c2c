"""What happens to processes and machines: stopped, asked to go, on another host, under another clock."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.toys import TOYS, chain, checkpointed, drive, metrics_of, ordered, ours, toy, value_of, wait_for

from ablate.core import disk, processes, temporary_files
from ablate.core.errors import HeldError
from ablate.core.failures import FAILURES
from ablate.execution import driver_records, study_lock
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.launch import start_fresh
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.store import Store

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def worker_of(attempt: Attempt) -> psutil.Process:
    return psutil.Process(supervisor_of(attempt).pid).children()[0]


def has_saved(attempt: Attempt) -> bool:
    return bool(list(attempt.checkpoints.glob("step-*/manifest.json")))


def elsewhere(attempt: Attempt) -> None:
    """Has an attempt's worker look as if it were on a machine that cannot be asked from here."""
    record = supervisor_of(attempt).model_copy(update={"host": "elsewhere"})
    disk.write_volatile(attempt.worker, record.model_dump_json())


def assert_counted_once(root: Path, stage, num_attempts: int) -> None:
    assert metrics_of(root, stage) == list(range(1, stage.settings.steps + 1))
    assert len(Store(root).attempts(stage.key12)) == num_attempts


@contextlib.contextmanager
def beating(store: Store, study: str):
    """A driver's heart, ten beats a second."""
    is_over = threading.Event()

    def beat() -> None:
        for number in itertools.count():
            study_lock.beat(store, study, number)
            if is_over.wait(0.1):
                return

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        is_over.set()
        heart.join()


# asked to go


def test_a_checkpoint_that_would_take_half_the_grace_is_not_begun(tmp_path):
    attempt = ordered(tmp_path, toy(steps=100, step_s=1.0, save_s=2.0), grace_s=4.0)
    supervisor = start_fresh(attempt)
    wait_for(lambda: has_saved(attempt))
    before = Checkpoints(attempt.checkpoints).latest()
    supervisor.terminate()
    assert supervisor.wait(30) == 1
    assert attempt.exit["failure"] == "preempted"
    assert Checkpoints(attempt.checkpoints).latest() == before
    assert attempt.exit["message"].startswith("stopped on request")


# stopped


def test_a_stopped_worker_is_killed_when_its_time_is_over(tmp_path):
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.01), stall_s=1.0)
    supervisor = start_fresh(attempt)
    wait_for(lambda: has_saved(attempt))
    worker_of(attempt).suspend()
    supervisor.wait(30)
    assert attempt.exit["failure"] == "stalled"
    assert ours(tmp_path) == []


def test_a_stopped_supervisor_is_killed_when_its_time_is_over_and_the_stage_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.watched.LOST_S", 2.0)
    stage = toy(steps=250, step_s=0.02)
    first = ordered(tmp_path, stage, stall_s=2.0)
    supervisor = start_fresh(first)
    wait_for(lambda: has_saved(first))
    supervisor.send_signal(signal.SIGSTOP)
    assert drive(tmp_path, [stage]).exit_code == 0
    supervisor.wait(30)
    assert first.exit["failure"] == "stalled"
    assert "gave no sign of life for" in first.exit["message"]
    assert_counted_once(tmp_path, stage, 2)
    assert ours(tmp_path) == []


def test_a_worker_stopped_elsewhere_comes_too_late_and_its_result_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.watched.LOST_S", 2.0)
    stage = toy(steps=60, step_s=0.02)
    first = ordered(tmp_path, stage)
    supervisor = start_fresh(first)
    wait_for(lambda: has_saved(first))
    stopped = [worker_of(first), psutil.Process(supervisor.pid)]
    for one in stopped:
        one.suspend()
    elsewhere(first)
    lines = []
    assert drive(tmp_path, [stage], write=lines.append).exit_code == 0
    folder = Store(tmp_path).folder(stage)
    committed = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for one in stopped:
        one.resume()
    supervisor.wait(60)
    assert any("which cannot be asked from here" in line for line in lines)
    assert first.exit["message"] == "another attempt was first; its result is as good"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == committed
    assert "goes on from step" in Store(tmp_path).attempts(stage.key12)[1].log.read_text()
    assert_counted_once(tmp_path, stage, 2)
    assert not list(tmp_path.glob("runs/attempts/*/*/checkpoints/*"))


# other machines


def test_a_worker_elsewhere_is_waited_for_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.watched.LOST_S", 3.0)
    stage = toy(steps=100, step_s=0.04)
    first = ordered(tmp_path, stage)
    supervisor = start_fresh(first)
    wait_for(lambda: has_saved(first))
    elsewhere(first)
    assert drive(tmp_path, [stage]).exit_code == 0
    supervisor.wait(30)
    assert_counted_once(tmp_path, stage, 1)


def test_what_was_lost_again_and_again_has_not_failed():
    assert not FAILURES["lost"].is_fault


@pytest.mark.parametrize("is_beating", [True, False])
def test_a_driver_elsewhere_holds_its_study_as_long_as_its_heart_beats(tmp_path, monkeypatch, is_beating):
    monkeypatch.setattr(driver_records, "PATIENCE_S", 2.0)
    store = Store(tmp_path)
    folder = store.study_folder("toys")
    folder.mkdir(parents=True)
    driver = processes.identity().model_copy(update={"host": "elsewhere", "pid": 17})
    since = "2026-11-27T00:00:00+00:00"
    record = {"driver": driver.model_dump(), "since": since, "job": ""}
    disk.write_sealed(folder / "driver.3.json", record)
    with beating(store, "toys") if is_beating else contextlib.nullcontext():
        if is_beating:
            with pytest.raises(HeldError, match="pid 17 on elsewhere"):
                drive(tmp_path, [toy()])
        else:
            assert drive(tmp_path, [toy()]).exit_code == 0


# what is left


def test_what_a_killed_worker_had_started_ends_with_the_next_run(tmp_path):
    stage = toy(steps=200, step_s=0.02, fault="litter")
    attempt = ordered(tmp_path, stage)
    supervisor = start_fresh(attempt)
    wait_for(lambda: any(one.name() == "sleep" for one in ours(tmp_path)))
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: len(ours(tmp_path)) == 1)
    calm = toy(steps=200, fault="none")
    assert calm.key == stage.key
    assert drive(tmp_path, [calm]).exit_code == 0
    assert ours(tmp_path) == []


def test_what_a_killed_driver_had_half_written_goes_with_the_next_run(tmp_path):
    folder = Store(tmp_path).study_folder("toys")
    folder.mkdir(parents=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (folder / f".driver.1.json.{temporary_files.place()}.{dead.pid}").write_text("{")
    drive(tmp_path, [toy()])
    assert sorted(path.name for path in folder.iterdir()) == ["driver.1.left.json", "heartbeat"]


# the clock


@pytest.mark.skipif(FAKETIME is None, reason="wants libfaketime")
@pytest.mark.parametrize("shift", ["+2h", "-3d"])
def test_under_another_clock_nothing_expires_and_nothing_is_begun_anew(tmp_path, shift):
    command = [sys.executable, str(TOYS), str(tmp_path), "2", "0.05", "fresh", "60"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": shift}
    again = subprocess.run(command, env=os.environ | clock, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "found at work" in again.stdout
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1", "1"]
    record = json.loads((Store(tmp_path).folder(chain(2, steps=60)[1]) / "stage.json").read_text())
    days = abs(time.time() - time.mktime(time.strptime(record["provenance"]["started"][:10], "%Y-%m-%d"))) / 86400
    assert (days > 2) == (shift == "-3d")  # the second toy was made under that clock
    assert value_of(tmp_path, chain(2, steps=60)[1])
