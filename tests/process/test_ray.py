"""Stages on a real Ray: what its nodes, its head, its users and our own drivers do to a study."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.processes import command_line, environment
from support.ray_cluster import RayUnderTest, drive_on_ray, profile_on, ray_under_test, require_ray, start_driver
from support.toys import chain, checkpointed, drive, metrics_of, ours, toy, value_of, wait_for

from ablate.core import disk
from ablate.execution.executors.base import EXECUTORS, python
from ablate.execution.pilots.pilot_job import PilotJob, claim_job, jobs_in
from ablate.execution.profiles import Profile
from ablate.execution.ray_cluster import cluster
from ablate.execution.ray_cluster.cluster import RayCluster
from ablate.execution.ray_cluster.options import RayOptions
from ablate.machine.slots import Placing
from ablate.store.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayUnderTest]:
    """A head, and whatever nodes tests add to it."""
    require_ray()
    with ray_under_test() as it:
        it.start_head()
        yield it


@pytest.fixture(scope="module")
def asking(ray_cluster: RayUnderTest) -> Iterator[RayCluster]:
    """One line for what all tests ask: it takes a second to join."""
    it = RayCluster(options_of(profile_on(ray_cluster.address)))
    yield it
    it._line._hang_up()


@pytest.fixture
def profile(ray_cluster: RayUnderTest, asking: RayCluster, tmp_path: Path) -> Iterator[Profile]:
    """One without cards. What a test leaves, here and on the cluster, is ended."""
    yield profile_on(ray_cluster.address)
    for driver in ours(tmp_path):
        driver.kill()
    with contextlib.suppress(Exception):
        asking.cancel(jobs_of(tmp_path))


def options_of(profile: Profile) -> RayOptions:
    return RayOptions.model_validate(profile.options)


def jobs_of(root: Path, study: str = "toys") -> list[PilotJob]:
    return list(jobs_in(root / "runs/jobs" / study))


def exits_of(root: Path) -> list[str]:
    """-> the class of failure of every attempt, stage after stage."""
    paths = sorted(root.glob("runs/attempts/*/*/exit.json"))
    return [json.loads(path.read_text())["failure"] for path in paths]


def actor_process(job: PilotJob) -> psutil.Process:
    """-> Ray's process for a job, by what it has in its hands: the other end of its keeper's input."""
    (keeper,) = (one for one in ours(job.path) if "keeper" in " ".join(command_line(one)))
    pipe = Path(f"/proc/{keeper.pid}/fd/0").readlink()
    return next(one for one in psutil.process_iter() if one.pid != keeper.pid and pipe in open_files(one.pid))


def open_files(pid: int) -> set[Path]:
    found: set[Path] = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(path.readlink())
    return found


def test_short_stages_share_a_job_and_end_with_the_bytes_that_this_machine_makes(tmp_path, profile):
    stages = chain(4, steps=10, step_s=0.01)
    assert drive_on_ray(profile, tmp_path / "ray", stages).exit_code == 0
    assert drive(tmp_path / "local", stages).exit_code == 0
    for stage in stages:
        files = [Store(tmp_path / place).folder(stage) / "metrics.jsonl" for place in ("ray", "local")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert len(jobs_of(tmp_path / "ray")) == 1
    wait_for(lambda: ours(tmp_path) == [], 10)


@pytest.mark.parametrize("num_gpus", [0, 1, 2])
def test_a_pilot_sees_the_cards_that_ray_assigned_or_none(tmp_path, ray_cluster, profile, num_gpus):
    crowd = RayCluster(options_of(profile_on(ray_cluster.address, num_gpus=num_gpus)))
    jobs = [claim_job(tmp_path / "runs/jobs/toys") for _ in range(2)]
    for job in jobs:
        disk.write_json(job.request, {"idle_s": 60.0, "fork_server": False})
    crowd.submit(jobs)
    crowd.submit(jobs)  # a driver that had no answer asks again: none is made twice
    wait_for(lambda: all(job.pilot.exists() for job in jobs))
    cards = [psutil.Process(job.record(job.pilot)["process"]["pid"]).environ()["CUDA_VISIBLE_DEVICES"] for job in jobs]
    seen = [set(filter(None, visible.split(","))) for visible in cards]
    assert [len(of_one) for of_one in seen] == [num_gpus, num_gpus]
    assert len(set.union(*seen) & set("0123")) == 2 * num_gpus  # none of them is another job's
    assert len([one for one in ours(tmp_path) if "ablate.execution.pilots.pilot" in command_line(one)]) == 2
    crowd.cancel(jobs)
    wait_for(lambda: ours(tmp_path) == [], 5)


def test_no_token_of_the_drivers_reaches_ray_a_node_or_a_file(tmp_path, ray_cluster, profile, monkeypatch):
    canary = "hf_canary0123456789"
    monkeypatch.setenv("HF_TOKEN", canary)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{canary}@proxy:1")
    run = start_driver(profile, tmp_path, 1, steps=1000, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    started = [*psutil.Process(run.pid).children(recursive=True), *ours(tmp_path / "runs")]
    told = [f"{environment(one)} {command_line(one)}" for one in started]
    assert len([words for words in told if "PATH" in words]) > 3  # the others have ended meanwhile
    assert [words for words in told if canary in words] == []
    run.send_signal(signal.SIGINT)
    run.wait(30)
    folders = (tmp_path, ray_cluster.folder)  # Ray's own logs lie in the second
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


def test_with_its_driver_killed_a_study_goes_on_under_a_new_one(tmp_path, profile):
    stages = chain(2, steps=60, step_s=0.05)
    run = start_driver(profile, tmp_path, 2, steps=60, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    before = {one.pid for one in ours(tmp_path / "runs")}
    assert drive_on_ray(profile, tmp_path, stages).exit_code == 0
    assert before
    assert exits_of(tmp_path) == ["ok", "ok"]
    assert len(jobs_of(tmp_path)) == 1
    assert metrics_of(tmp_path, stages[0]) == list(range(1, 61))


def test_a_node_that_dies_takes_all_with_it_and_its_stage_goes_on_elsewhere(tmp_path, ray_cluster, profile, asking):
    ray_cluster.start_node(trainer=1)
    ray_cluster.start_node(trainer=1)
    (stage,) = chain(1, steps=100, step_s=0.05)
    it = profile_on(ray_cluster.address, resources={"trainer": 1})
    run = start_driver(it, tmp_path, 1, steps=100, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    table = asking.table(jobs_of(tmp_path))
    (status,) = table.jobs.values()
    at_work = ours(tmp_path / "runs/attempts")
    ray_cluster.node_at(status.node).raylet.kill()
    wait_for(lambda: not any(one.is_running() for one in at_work), 20)
    assert run.wait(60) == 0
    assert exits_of(tmp_path) == ["lost", "ok"]
    assert metrics_of(tmp_path, stage) == list(range(1, 101))
    assert value_of(tmp_path, stage) == value_of_local(tmp_path / "local", stage)
    for node in ray_cluster.nodes[1:]:
        node.stop()


def value_of_local(root: Path, stage) -> int:
    quick = toy(steps=stage.settings.steps, seed=stage.settings.seed)
    assert drive(root, [quick]).exit_code == 0
    return value_of(root, quick)


def test_an_actor_that_its_user_kills_is_cancelled_and_takes_all_with_it(tmp_path, profile, asking):
    run = start_driver(profile, tmp_path, 1, steps=1000, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    asking.cancel(jobs_of(tmp_path))
    assert run.wait(30) != 0
    assert exits_of(tmp_path) == ["cancelled"]
    wait_for(lambda: ours(tmp_path) == [], 10)


def test_an_actor_whose_process_dies_takes_all_with_it_and_its_stage_is_tried_again(tmp_path, profile):
    (stage,) = chain(1, steps=60, step_s=0.05)
    run = start_driver(profile, tmp_path, 1, steps=60, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    at_work = ours(tmp_path / "runs/attempts")
    actor_process(jobs_of(tmp_path)[0]).kill()
    wait_for(lambda: not any(one.is_running() for one in at_work), 10)
    assert run.wait(60) == 0
    assert exits_of(tmp_path) == ["killed", "ok"]
    assert metrics_of(tmp_path, stage) == list(range(1, 61))


def test_what_no_node_can_meet_is_said_at_once(tmp_path, ray_cluster, profile, asking):
    begun_at, stage = time.monotonic(), toy()
    summary = drive_on_ray(profile_on(ray_cluster.address, num_gpus=64), tmp_path, [stage])
    assert time.monotonic() - begun_at < 20
    outcome = summary.outcomes[stage.key]
    assert (outcome.phase, outcome.failure) == ("failed", "unfit")
    assert "asks for 64 GPU, 1 CPU" in outcome.message
    assert "1 node with 4 GPU, 8 CPU" in outcome.message
    (status,) = asking.table(jobs_of(tmp_path)).jobs.values()
    assert status.phase == "over"


def test_why_a_pilot_cannot_start_on_a_node_is_told_in_one_line(tmp_path, profile, asking, monkeypatch):
    jobs = [PilotJob(tmp_path / "runs/jobs/toys/1"), claim_job(tmp_path / "runs/jobs/others")]
    asking.submit(jobs[:1])
    monkeypatch.setattr(cluster, "python", lambda _, folder: python("ablate.no_such_module", folder))
    asking.submit(jobs[1:])
    wait_for(lambda: all(status.phase == "over" for status in asking.table(jobs).jobs.values()))
    endings, node = [asking.table(jobs).jobs[job.token].ending for job in jobs], socket.gethostname()
    assert {ending.failure for ending in endings} == {"error"}
    assert endings[0].message.startswith(f"Ray: RuntimeError: node {node} does not see {jobs[0].path}: ")
    assert f"RuntimeError: node {node} could not run {sys.executable} -P -m ablate.no_such" in endings[1].message
    assert endings[1].message.endswith("No module named ablate.no_such_module")


def test_doctor_hears_of_the_cluster_and_of_what_it_cannot_meet(ray_cluster, profile):
    (line,) = EXECUTORS["ray"](Placing(options=profile.options)).check()
    assert (line.state, line.text) == ("ok", "1 node with 8 CPU")
    too_large = profile_on(ray_cluster.address, memory="900T")
    assert [line.state for line in EXECUTORS["ray"](Placing(options=too_large.options)).check()] == ["ok", "problem"]
    nobody = profile_on("127.0.0.2:1")
    (line,) = EXECUTORS["ray"](Placing(options=nobody.options)).check()
    assert line.state == "problem"
    assert "ConnectionRefusedError" in line.text


def test_where_the_cluster_grows_a_job_waits_for_its_node_even_without_its_driver(tmp_path, ray_cluster, profile):
    it = profile_on(ray_cluster.address, resources={"late": 1}, autoscaling=True)
    run = start_driver(it, tmp_path, 1, steps=5)
    wait_for(lambda: [job for job in jobs_of(tmp_path) if job.acknowledged.exists()])
    run.kill()
    run.wait()
    node = ray_cluster.start_node(late=1)
    wait_for(lambda: exits_of(tmp_path) == ["ok"])
    assert drive_on_ray(it, tmp_path, chain(1, steps=5)).exit_code == 0
    node.stop()


STOP = """
import sys; from pathlib import Path
from ablate.execution.status import states
from ablate.execution.stop import stop_study
from ablate.store.store import Store
from support.toys import chain
store = Store(Path(sys.argv[1]))
[before] = states(chain(1, steps=400, step_s=0.05), store).values()
print(before.word, stop_study(store, "toys", is_now=False))
"""


def test_stop_of_another_process_ends_a_run_whose_driver_is_gone(tmp_path, profile):
    run = start_driver(profile, tmp_path, 1, steps=400, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    command = [sys.executable, "-c", STOP, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["running", "1"]
    assert exits_of(tmp_path) == ["cancelled"]
    wait_for(lambda: ours(tmp_path) == [], 20)  # its pilot waits a little for more


def test_two_drivers_of_two_studies_share_stages(tmp_path, profile):
    runs = [start_driver(profile, tmp_path, 3, study=name, steps=20, step_s=0.05) for name in ("one", "two")]
    assert [run.wait(90) for run in runs] == [0, 0]
    exits = exits_of(tmp_path)
    assert exits.count("ok") == 3
    assert set(exits) <= {"ok", "cancelled"}  # one that both claimed in the same instant
    for stage in chain(3, steps=20, step_s=0.05):
        assert metrics_of(tmp_path, stage) == list(range(1, 21))


def test_a_head_that_goes_and_comes_back_costs_a_try_and_no_result(tmp_path, ray_cluster, profile):
    ray_cluster.start_node(steady=1)
    (stage,) = chain(1, steps=200, step_s=0.05)
    it = profile_on(ray_cluster.address, resources={"steady": 1})
    run = start_driver(it, tmp_path, 1, steps=200, step_s=0.05)
    wait_for(lambda: checkpointed(tmp_path))
    at_work = ours(tmp_path / "runs/attempts")
    ray_cluster.nodes[0].stop()
    wait_for(lambda: not any(one.is_running() for one in at_work), 30)  # its own node lives a little without a head
    assert run.poll() is None
    ray_cluster.start_head()
    ray_cluster.start_node(steady=1)
    assert run.wait(90) == 0
    assert exits_of(tmp_path) == ["lost", "ok"]
    assert metrics_of(tmp_path, stage) == list(range(1, 201))
