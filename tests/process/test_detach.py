"""`run --detach`: it returns once the run goes on by itself, and whatever becomes of the driver, the study goes on."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.toys import one_table, ours, wait_for

from ablate.execution import driver_records, study_lock
from ablate.execution.stop import stop_study
from ablate.store.store import Store

SMALL = ("train.max_steps=150", "train.warmup_steps=1", "evaluate.limit=4", "data.limit=64", "data.holdout=8")
CELL = "finetuned_student/student/finetuned"


def ablate(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate", "--root", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    sets = [part for one in SMALL for part in ("--set", one)]
    return ablate(root, "run", str(one_table(root)), *sets, "--only", CELL, *words)


@pytest.fixture
def root(tmp_path):
    yield tmp_path
    stop_study(Store(tmp_path), "tiny", is_now=True)
    wait_for(lambda: ours(tmp_path) == [])


def is_training(root: Path) -> bool:
    return any(path.stat().st_size for path in root.glob("runs/attempts/*/1/made/metrics.jsonl"))


def log_of(root: Path) -> Path:
    return root / "runs/studies/tiny/run.log"


def test_a_detached_run_goes_on_without_its_terminal_and_one_that_is_killed_is_taken_over(root):
    begun = run(root, "--detach")
    assert begun.returncode == 0, begun.stderr
    record = driver_records.last_record(Store(root), "tiny")
    assert f"tiny is run by {record.driver} (detached)" in begun.stdout
    assert "ablate status tiny --watch" in begun.stdout
    driver = psutil.Process(record.driver.pid)
    assert driver.terminal() is None
    second = run(root)
    assert second.returncode == 4
    assert f"is being run by {record.driver} (detached) since 20" in second.stderr
    assert f"what it prints is in {log_of(root)}" in second.stderr
    wait_for(lambda: is_training(root), 120)
    driver.kill()
    wait_for(lambda: not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE)
    again = run(root)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "found at work" in again.stdout
    assert {path.name for path in root.glob("runs/attempts/*/*")} == {"1"}
    assert "started" in log_of(root).read_text()


def test_a_driver_that_does_not_come_up_says_why_as_the_verb_does(root):
    detached, plain = run(root, "--detach", "--gpus", "7"), run(root, "--gpus", "7")
    assert detached.returncode == plain.returncode == 2
    assert detached.stderr == plain.stderr
    assert "--gpus names 7" in detached.stderr
    assert study_lock.driver_of(Store(root), "tiny") is None


def test_stop_ends_a_detached_run_in_order(root):
    assert run(root, "--detach").returncode == 0
    wait_for(lambda: is_training(root), 120)
    stopped = ablate(root, "stop", "tiny")
    assert stopped.returncode == 0, stopped.stderr
    assert study_lock.driver_of(Store(root), "tiny") is None
    exits = [json.loads(path.read_text())["failure"] for path in root.glob("runs/attempts/*/*/exit.json")]
    assert "cancelled" in exits
    wait_for(lambda: "stopped; to go on: ablate" in log_of(root).read_text())  # its report is written first


def test_where_no_driver_can_run_is_told_before_anything_is_done(root):
    refused = run(root, "--detach", "--executor", "nowhere")
    assert refused.returncode == 2
    assert "Possible" in refused.stderr
    assert not (root / "runs").exists()
