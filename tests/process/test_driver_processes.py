"""Whole runs of toys: failures, signals, kills, several drivers at once."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.toys import TOYS, chain, checkpointed, drive, metrics_of, ordered, ours, quiet, toy, value_of, wait_for

from ablate.core.errors import HeldError
from ablate.execution import study_lock
from ablate.execution.driver import driving
from ablate.execution.executors.local import Local
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing
from ablate.stages.toy import ToySettings
from ablate.store.stage import Stage
from ablate.store.store import Store


def start(root: Path, length=2, step_s=0.05, way="fresh") -> subprocess.Popen:
    command = [sys.executable, str(TOYS), str(root), str(length), str(step_s), way, "60"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[int]:
    """What `start` counts to when nothing disturbs it."""
    root = tmp_path_factory.mktemp("undisturbed")
    stages = chain(2, steps=60)
    assert drive(root, stages).exit_code == 0
    return [value_of(root, stage) for stage in stages]


def assert_same_as(undisturbed: list[int], root: Path) -> None:
    stages = chain(2, steps=60)
    assert [value_of(root, stage) for stage in stages] == undisturbed
    for stage in stages:
        assert metrics_of(root, stage) == list(range(1, 61))


def test_a_run_does_each_stage_once_and_a_second_run_starts_nothing(tmp_path):
    left, right = toy(seed=1), toy(seed=2)
    stages = [left, right, toy(left, right)]
    first = drive(tmp_path, stages)
    assert (first.exit_code, first.num_started) == (0, 3)
    second = drive(tmp_path, stages)
    assert (second.exit_code, second.num_started) == (0, 0)


def test_a_failed_stage_says_why_and_the_rest_is_done(tmp_path):
    bad, good = toy(seed=1, fault="crash"), toy(seed=2)
    after = toy(bad)
    lines = []
    summary = drive(tmp_path, [bad, good, after], write=lines.append)
    assert summary.exit_code == 1
    assert [summary.outcomes[stage.key].phase for stage in (bad, good, after)] == ["failed", "done", "blocked"]
    assert summary.outcomes[bad.key].message == "ValueError: told to crash at step 1"
    assert any("failed" in line and "told to crash" in line for line in lines)


def test_what_passes_is_tried_again_and_counts_each_step_once(tmp_path):
    stage = toy(steps=8, fault="network", fault_step=5, faults=str(tmp_path / "faults"), num_faults=1)
    assert drive(tmp_path, [stage]).exit_code == 0
    assert len(Store(tmp_path).attempts(stage.key12)) == 2
    assert value_of(tmp_path, stage) == value_of(tmp_path, toy(steps=8))


def test_a_stage_without_a_final_key_is_never_started(tmp_path):
    early = Stage("toy", 1, ToySettings(), is_provisional=True)
    summary = drive(tmp_path, [early, toy(early)])
    assert summary.num_started == 0
    assert [outcome.phase for outcome in summary.outcomes.values()] == ["blocked", "blocked"]


def test_a_failed_stage_is_tried_once_however_often_the_plan_grows(tmp_path):
    bad = toy(fault="denied")
    after = toy(bad)
    with driving(Store(tmp_path), "toys", Local(Placing(num_jobs=1, uses_fork_server=False)), quiet()) as driver:
        driver.run([bad], lambda _: 1.0)
        summary = driver.run([bad, after], lambda _: 1.0)
    assert summary.num_started == 1
    assert [outcome.phase for outcome in summary.outcomes.values()] == ["failed", "blocked"]


def test_a_failed_stage_is_tried_again_by_the_next_run(tmp_path):
    stage = toy(fault="denied", faults=str(tmp_path / "faults"), num_faults=1)
    assert drive(tmp_path, [stage]).exit_code == 1
    assert drive(tmp_path, [stage]).exit_code == 0


def test_fail_fast_leaves_the_rest_for_the_next_run(tmp_path):
    bad, slow = toy(fault="error", fault_step=3), toy(seed=1, steps=400, step_s=0.05)
    summary = drive(tmp_path, [bad, slow], options=Options(is_fail_fast=True))
    assert summary.exit_code == 1
    assert summary.outcomes[slow.key].phase == "stopped"
    assert ours(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGHUP, 75)],
)
def test_asked_once_to_stop_it_saves_leaves_nothing_and_goes_on_later(tmp_path, undisturbed, number, code):
    run = start(tmp_path)
    wait_for(lambda: checkpointed(tmp_path))
    run.send_signal(number)
    assert run.wait(20) == code
    assert ours(tmp_path) == []
    assert '"failure": "cancelled"' in next(tmp_path.glob("runs/attempts/*/1/exit.json")).read_text()
    assert start(tmp_path, step_s=0.001).wait(30) == 0
    assert "goes on from step" in next(tmp_path.glob("runs/attempts/*/2/log.txt")).read_text()
    assert_same_as(undisturbed, tmp_path)


def test_a_run_stopped_while_its_first_worker_starts_ends_at_once(tmp_path):
    run = start(tmp_path, way="warm")
    wait_for(lambda: any(tmp_path.glob("runs/attempts/*/1/attempt.json")))
    run.send_signal(signal.SIGINT)
    asked_at = time.monotonic()
    assert run.wait(20) == 130
    assert time.monotonic() - asked_at < 2
    assert ours(tmp_path) == []


def test_ctrl_c_twice_kills_what_does_not_heed(tmp_path):
    stage = toy(fault="hang")
    code = f"from support.toys import *; sys.exit(drive(Path({str(tmp_path)!r}), [toy(fault='hang')]).exit_code)"
    run = subprocess.Popen([sys.executable, "-c", code], cwd=TOYS.parent)
    wait_for(lambda: any(tmp_path.glob("runs/attempts/*/1/made/metrics.jsonl")))
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 130
    assert ours(tmp_path) == []
    assert Store(tmp_path).attempts(stage.key12)[0].exit["failure"] == "cancelled"


def test_a_second_run_of_a_study_is_told_who_has_it(tmp_path):
    run = start(tmp_path)
    wait_for(lambda: study_lock.driver_of(Store(tmp_path), "toys"))
    with pytest.raises(HeldError, match=rf"is being run by pid {run.pid} on .* since 20"):
        drive(tmp_path, chain(2, steps=60))
    run.kill()
    run.wait()


def test_two_studies_that_share_a_stage_run_it_once(tmp_path):
    run = start(tmp_path, step_s=0.03)
    wait_for(lambda: checkpointed(tmp_path))
    lines = []
    summary = drive(tmp_path, chain(2, steps=60, step_s=0.03), study="another", write=lines.append)
    assert summary.exit_code == 0
    assert run.wait(20) == 0
    assert any("found at work" in line for line in lines)
    # of two that claim a stage in the same instant, the later one withdraws before any work
    exits = [json.loads(path.read_text())["failure"] for path in tmp_path.glob("runs/attempts/*/*/exit.json")]
    assert sorted(exits) in (["ok", "ok"], ["cancelled", "ok", "ok"])
    assert len(list(tmp_path.glob("runs/attempts/*/*/worker.json"))) == 2


@pytest.mark.parametrize("way", ["fresh", "warm"])
def test_workers_outlive_a_killed_driver_and_the_next_one_finds_them(tmp_path, undisturbed, way):
    run = start(tmp_path, step_s=0.05, way=way)
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    assert len(ours(tmp_path)) == 2
    again = start(tmp_path, step_s=0.001)
    output = again.communicate()[0]
    assert again.returncode == 0
    assert "found at work" in output
    assert_same_as(undisturbed, tmp_path)
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1", "1"]


def test_an_attempt_whose_driver_was_killed_before_its_worker_came_is_given_up_at_once(tmp_path):
    stage = toy()
    gone = {"host": socket.gethostname(), "boot": "an earlier one", "namespace": "", "pid": 1, "started": 1}
    early = ordered(tmp_path, stage, driver=gone)
    begun_at = time.monotonic()
    assert drive(tmp_path, [stage]).exit_code == 0
    assert early.exit["failure"] == "killed"
    assert time.monotonic() - begun_at < 5


def test_a_result_that_lost_a_file_is_set_aside_and_made_again(tmp_path):
    stage = toy()
    drive(tmp_path, [stage])
    (Store(tmp_path).folder(stage) / "out/result.json").unlink()
    assert drive(tmp_path, [stage]).num_started == 1
    assert Store(tmp_path).done(stage)
    assert list(tmp_path.glob("runs/aside/*"))
