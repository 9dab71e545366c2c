"""One run on two clusters at once: both have some of the work, and the results are those of this machine."""

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.executors import example_service
from support.paths import TESTS
from support.toys import drive, ours, quiet, toy, wait_for

from ablate.execution.driver import Summary, driving
from ablate.execution.fleet import fleet_of
from ablate.execution.profile_file import profiles_named
from ablate.execution.remote_example.executor import NAME
from ablate.execution.status import states
from ablate.execution.stop import stop_study
from ablate.execution.workers import has_signed
from ablate.machine.slots import Placing
from ablate.store.stage import Stage
from ablate.store.store import Store

STAGES = [toy(seed=seed, steps=10, step_s=0.02) for seed in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Two clusters, and a file with a profile of each."""
    with contextlib.ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(example_service(tmp_path / name))
        lines = (f"{name}: {{kind: {NAME}, folder: {tmp_path / name}, max_jobs: 1}}\n" for name in ("a", "b"))
        (tmp_path / "executors.yaml").write_text("".join(lines))
        yield tmp_path
    for left in ours(tmp_path):
        left.kill()


def run(folder: Path, root: Path, stages: list[Stage]) -> Summary:
    fleet = fleet_of(profiles_named(["a,b"], folder), Placing())
    with driving(Store(root), "toys", fleet, quiet()) as driver:
        return driver.run(stages, lambda _: 1.0)


def made_in(root: Path) -> dict[str, bytes]:
    return {path.parts[-3]: path.read_bytes() for path in root.glob("runs/stages/*/out/result.json")}


def test_stages_go_to_both_and_come_to_what_this_machine_makes(folder):
    assert run(folder, folder / "root", STAGES).exit_code == 0
    assert drive(folder / "alone", STAGES).exit_code == 0
    assert made_in(folder / "root") == made_in(folder / "alone")
    requests = [attempt.request for attempt in Store(folder / "root").all_attempts()]
    profiles = Counter(request["profile"]["name"] for request in requests)
    assert profiles.keys() == {"a", "b"}
    assert min(profiles.values()) >= 2
    assert {request["profile"]["options"]["folder"] for request in requests} == {str(folder / "a"), str(folder / "b")}
    wait_for(lambda: ours(folder / "root") == [], 20)


DRIVER = """
import sys; from pathlib import Path
import support.executors; from support.toys import toy
sys.path.insert(0, sys.argv[3])
from process.test_two_clusters import run
run(Path(sys.argv[1]), Path(sys.argv[2]), [toy(seed=seed, steps=2000, step_s=0.05) for seed in range(2)])
"""


def test_status_and_stop_ask_each_cluster_by_what_the_attempts_say_once_driver_and_file_are_gone(folder):
    stages, store = [toy(seed=seed, steps=2000, step_s=0.05) for seed in range(2)], Store(folder / "root")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder), str(store.root), str(TESTS)])
    try:
        wait_for(lambda: all(any(map(has_signed, store.attempts(stage.key12))) for stage in stages))
    finally:
        driver.kill()
        driver.wait()
    (folder / "executors.yaml").unlink()
    assert {state.word for state in states(stages, store).values()} == {"running"}
    assert stop_study(store, "toys") == 2
    assert {state.word for state in states(stages, store).values()} == {"waiting"}
    assert [attempt.exit["failure"] for attempt in store.all_attempts()] == ["cancelled"] * 2
