"""`run --detach`: it returns once the run goes on by itself, and whatever becomes of the driver, the study goes on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support import detached_toys
from support.processes import is_alive
from support.ray_cluster import NUM_CPUS, profile_on, ray_under_test, require_ray
from support.slurm import shared_slurm
from support.slurm_toys import OPTIONS
from support.toys import checkpointed, drive, metrics_of, one_table, ours, wait_for

from ablate.core.errors import HeldError
from ablate.execution import driver_records, status, study_lock
from ablate.execution.detached import detach
from ablate.execution.detached.detach import Detached, host_of
from ablate.execution.profiles import Profile
from ablate.execution.stop import stop_study
from ablate.store.store import Store

SMALL = ("train.max_steps=500", "train.warmup_steps=1", "evaluate.limit=4", "data.limit=64", "data.holdout=8")
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
    wait_for(lambda: not is_alive(driver))
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


# a driver that is a job


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    real = shared_slurm()
    for name, value in real.variables.items():
        monkeypatch.setenv(name, value)
    yield real
    real.clear()
    wait_for(lambda: ours(tmp_path) == [])


STEPS = 100
SLURM = Profile(
    "a100", "slurm", OPTIONS | {"max_jobs": 2, "memory": "300M", "driver": {"memory": "300M", "time": "5m"}}
)


def detached(root: Path, profile: Profile, steps: int = STEPS) -> Detached:
    words = detached_toys.words(root, profile, steps)
    outcome = detach.detach(Store(root), "toys", profile, words, lambda _: None)
    assert isinstance(outcome, Detached), outcome
    return outcome


def driver_log(root: Path) -> str:
    return detach.run_log(Store(root), "toys").read_text()


@pytest.mark.slow
def test_a_driver_that_is_a_job_of_slurms_goes_when_told_is_queued_again_and_goes_on(tmp_path, slurm, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", canary := "canary-of-a-token-21")
    store, stages = Store(tmp_path), detached_toys.stages(STEPS)
    who = detached(tmp_path, SLURM).who
    record = driver_records.last_record(store, "toys")
    job = record.job.split()[2]
    assert record.job == f"Slurm job {job} of profile a100"
    assert who == f"{record.driver} ({record.job})"
    with pytest.raises(HeldError, match=rf"is being run by pid \d+ on .* \(Slurm job {job} of profile a100\) since"):
        drive(tmp_path, stages)
    wait_for(lambda: checkpointed(tmp_path))
    (state, _) = status.states(stages, store).values()
    assert re.match(r"a100 job \d+ on ", str(state.where)), state
    script = slurm.ask("scontrol", "write", "batch_script", job, "-")
    assert "gres" not in script
    texts = [script, slurm.ask("scontrol", "show", "job", "-d", job), driver_log(tmp_path)]
    assert not any(canary in text for text in texts)
    slurm.ask("scancel", "--batch", "--signal=USR2", job)
    wait_for(lambda: driver_records.last_record(store, "toys").number > 1, 120)
    again = driver_records.last_record(store, "toys")
    assert again.job == record.job
    wait_for(lambda: driver_records.last_record(store, "toys").has_left, 120)
    assert "its job is to end: this driver goes, and what runs goes on" in driver_log(tmp_path)
    assert "found at work" in driver_log(tmp_path)
    assert [metrics_of(tmp_path, stage) for stage in stages] == [list(range(1, STEPS + 1))] * 2
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1", "1"]
    wait_for(lambda: not slurm.jobs(), 60)


@pytest.mark.slow
def test_a_driver_in_a_queue_is_named_to_whoever_comes_and_taken_back_by_stop(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(detach, "QUEUE_S", 1.0)
    slurm.ask("scontrol", "update", "PartitionName=batch", "State=DOWN")
    waiting = detached(tmp_path, SLURM)
    assert "PartitionDown" in waiting.waits
    with pytest.raises(HeldError, match=r"is to be run by Slurm job .* which is in the queue .*PartitionDown"):
        detach.require_none_queued(Store(tmp_path), "toys")
    assert str(detach.queued(Store(tmp_path), "toys")).endswith(f"which is in the queue ({waiting.waits})")
    assert stop_study(Store(tmp_path), "toys") == 0
    wait_for(lambda: not slurm.jobs(), 60)


@pytest.mark.slow
def test_stop_ends_a_driver_that_is_a_job_its_jobs_and_what_they_are_at(tmp_path, slurm):
    detached(tmp_path, SLURM)
    wait_for(lambda: checkpointed(tmp_path))
    assert stop_study(Store(tmp_path), "toys") == 1
    assert driver_records.last_record(Store(tmp_path), "toys").has_left
    wait_for(lambda: not slurm.jobs(), 60)


@pytest.fixture
def crowd(tmp_path):
    require_ray()
    with ray_under_test() as cluster:
        cluster.start_head()
        yield profile_on(cluster.address, answer_s=60, num_cpus=NUM_CPUS)  # a job wants all that the node has
        stop_study(Store(tmp_path), "toys", is_now=True)
    wait_for(lambda: ours(tmp_path) == [])


@pytest.mark.slow
def test_a_driver_that_is_an_actor_of_rays_outlives_who_made_it_and_another_goes_on_when_it_is_ended(tmp_path, crowd):
    store, stages = Store(tmp_path), detached_toys.stages(steps := 40)
    who = detached(tmp_path, crowd, steps).who
    record = driver_records.last_record(store, "toys")
    assert re.search(r"\(Ray actor ablate-driver-\w+-\w+ of profile crowd\)$", who), who
    with pytest.raises(HeldError, match=r"is being run by pid \d+ on .* \(Ray actor ablate-driver"):
        drive(tmp_path, stages)
    wait_for(lambda: checkpointed(tmp_path))
    (state, _) = status.states(stages, store).values()
    assert re.match(r"crowd job ablate-\w+-1 on ", str(state.where)), state
    host_of(crowd).cancel_driver(record.job.split()[2])
    wait_for(lambda: driver_records.last_record(store, "toys").has_left)
    assert "its job is to end: this driver goes, and what runs goes on" in driver_log(tmp_path)
    detached(tmp_path, crowd, steps)
    wait_for(lambda: driver_records.last_record(store, "toys").has_left, 120)
    assert [metrics_of(tmp_path, stage) for stage in stages] == [list(range(1, steps + 1))] * 2
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1", "1"]
