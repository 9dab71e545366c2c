"""The embedded study by this machine, by a real Slurm and by a real Ray, and changed in the middle: the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support import several_cards
from support.paths import TINY
from support.ray_cluster import SETTINGS, RayUnderTest, ray_under_test, require_ray
from support.slurm import NoSlurm, RealSlurm, real_slurm
from support.toys import SET_SHORTER, one_table, ours, wait_for

from ablate.execution.profiles import Profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

JOBS = {"max_jobs": 2, "look_s": 1.0, "idle_s": 30.0, "margin_s": 0.0, "submissions_per_minute": 60}
ENDED_S = 120.0
"""For jobs to be gone once their driver is."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[RealSlurm]:
    try:
        with real_slurm() as cluster:
            yield cluster
    except NoSlurm as error:
        pytest.skip(f"NOTHING OF SLURM IS TESTED: {error}")


@pytest.fixture(scope="module")
def ray() -> Iterator[RayUnderTest]:
    require_ray()
    with ray_under_test() as cluster:
        cluster.start_head()
        yield cluster


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies; the local results are kept beside them."""
    folder = tmp_path_factory.mktemp("clusters")
    shutil.copy(TINY, folder / "tiny.yaml")
    one_table(folder)
    return folder


def profile_of(cluster: RealSlurm | RayUnderTest) -> dict[str, object]:
    if isinstance(cluster, RealSlurm):
        return {"kind": "slurm", "partition": "batch", "cpus": 1, "time": "30m", **JOBS}
    return {"kind": "ray", "address": cluster.address, "num_gpus": 0, **JOBS}


def environment_of(cluster: RealSlurm | RayUnderTest) -> dict[str, str]:
    return cluster.environment if isinstance(cluster, RealSlurm) else os.environ | SETTINGS


def wait_until_gone(root: Path, *clusters: RealSlurm | RayUnderTest) -> None:
    """Until no process works under a root, and no job of its own is in a queue."""
    wait_for(lambda: ours(root) == [], ENDED_S)
    for cluster in clusters:
        if isinstance(cluster, RealSlurm):
            wait_for(lambda cluster=cluster: not cluster.jobs(), ENDED_S)


@dataclass
class Run:
    """One `ablate run` as a process of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_for(self, is_true: Callable[[], object], seconds: float = 300.0) -> None:
        """Until it is so; the run must not end before."""
        until = time.monotonic() + seconds
        while not is_true():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def ended_with(self, code: int) -> None:
        assert self.process.wait() == code, self.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts runs of a study on profiles; what is left of them is killed."""
    runs: list[Run] = []

    def started(study: Path, root: Path, *words: str, env: dict[str, str] | None = None) -> Run:
        log = tmp_path / f"run-{len(runs)}.txt"
        command = [sys.executable, "-m", "ablate", "--root", str(root), "run", str(study), *words]
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
        runs.append(Run(process, log))
        return runs[-1]

    yield started
    for one in runs:
        one.process.kill()
        one.process.wait()


def results(study: Path, root: Path, *words: str, env: dict[str, str] | None = None) -> bytes:
    """-> results.csv of a run to the end."""
    command = [sys.executable, "-m", "ablate", "--root", str(root), "run", str(study), *words]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return (root / "reports/tiny/results.csv").read_bytes()


def executors_of(root: Path) -> list[str]:
    """-> by which each attempt that came to a result was placed, but for those that fetch."""
    ended = [
        path.parent
        for path in root.glob("runs/attempts/*/*/exit.json")
        if json.loads(path.read_text())["failure"] == "ok"
    ]
    requests = [json.loads((folder / "attempt.json").read_text()) for folder in ended]
    return [request.get("executor", "local") for request in requests if not request["is_online"]]


def with_profiles(here: Path, **clusters: RealSlurm | RayUnderTest) -> dict[str, str]:
    """-> the environment of a driver on them; executors.yaml lies beside the studies."""
    profiles = {name: profile_of(cluster) for name, cluster in clusters.items()}
    (here / "executors.yaml").write_text(yaml.safe_dump(profiles))
    env: dict[str, str] = {}
    for cluster in clusters.values():
        env |= environment_of(cluster)
    return env


# whole, on one cluster


@pytest.fixture(scope="module")
def by_this_machine(here: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.csv of the whole study, here."""
    return results(here / "tiny.yaml", tmp_path_factory.mktemp("local"), "--jobs", "2")


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_the_embedded_study_comes_to_the_same_bytes_on_a_cluster(here, by_this_machine, tmp_path, name, request):
    cluster = request.getfixturevalue(name)
    env = with_profiles(here, jobs=cluster)
    assert results(here / "tiny.yaml", tmp_path, "--executor", "jobs", env=env) == by_this_machine
    assert set(executors_of(tmp_path)) == {name}
    wait_until_gone(tmp_path, cluster)


# changed in the middle


def test_half_on_one_cluster_the_rest_on_another_comes_to_the_same_bytes(here, slurm, ray, tmp_path, start):
    """The first driver is killed and its jobs go on, the second is stopped, this machine does the rest."""
    study, root = here / "study.yaml", tmp_path / "changed"
    undisturbed = results(study, tmp_path / "local", "--jobs", "2", *SET_SHORTER)
    env = with_profiles(here, batch=slurm, crowd=ray)
    first = start(study, root, "--executor", "batch", *SET_SHORTER, env=env)
    first.wait_for(lambda: "slurm" in executors_of(root))
    first.process.kill()
    first.ended_with(-signal.SIGKILL)
    second = start(study, root, "--executor", "crowd", *SET_SHORTER, env=env)
    second.wait_for(lambda: "ray" in executors_of(root))
    second.process.send_signal(signal.SIGINT)
    second.ended_with(130)
    assert results(study, root, "--jobs", "2", *SET_SHORTER, env=env) == undisturbed
    assert set(executors_of(root)) == {"slurm", "ray", "local"}
    wait_until_gone(root, slurm, ray)


def num_done(root: Path) -> int:
    return len(list(root.glob("runs/stages/*/done.json")))


@pytest.mark.soak
def test_the_whole_study_half_on_each_cluster_comes_to_the_same_bytes(
    here, by_this_machine, slurm, ray, tmp_path, start
):
    env = with_profiles(here, batch=slurm, crowd=ray)
    for one, other in (("batch", "crowd"), ("crowd", "batch")):
        root = tmp_path / one
        first = start(here / "tiny.yaml", root, "--executor", one, env=env)
        first.wait_for(lambda root=root: num_done(root) >= 22, 600)
        first.process.kill()
        assert results(here / "tiny.yaml", root, "--executor", other, env=env) == by_this_machine
        assert set(executors_of(root)) == {"slurm", "ray"}
    wait_until_gone(tmp_path, slurm, ray)


def test_a_stage_of_several_processes_has_them_in_its_job_and_comes_to_the_results_of_one(slurm, tmp_path, monkeypatch):
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one = several_cards.run(folders[0], "train.cards=1", "evaluate.cards=1")
    options = {name: value for name, value in profile_of(slurm).items() if name != "kind"}
    profile = Profile("slurm", "slurm", options | {"cpus": 2})
    two = several_cards.run(folders[1], "train.cards=2", "evaluate.cards=2", profile=profile)
    several_cards.require_alike(one, two, rel=1e-5)
    assert {num_processes for _, _, num_processes in two.places} == {2}
    wait_until_gone(tmp_path, slurm)
