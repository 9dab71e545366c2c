"""A study killed at any moment ends, with the same command, in the same results."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

TINY = Path(__file__).parents[1] / "studies" / "tiny.yaml"
SMALL = (
    "train.max_steps=40",
    "train.warmup_steps=2",
    "train.checkpoint_every_s=0.2",
    "evaluate.limit=10",
    "data.limit=128",
)
SEED = 20261124


def _command(root: Path) -> list[str]:
    sets = [part for one in SMALL for part in ("--set", one)]
    only = ["--only", "finetuned_student/*"]
    return [sys.executable, "-m", "ablate", "--root", str(root), "run", str(TINY), *sets, *only]


def _run(root: Path) -> None:
    done = subprocess.run(_command(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _results(root: Path) -> bytes:
    return (root / "reports/tiny/results.csv").read_bytes()


def _curves(root: Path) -> dict[str, list[tuple[int, float]]]:
    """-> what each training told: every step once, in order, with its loss."""
    curves = {}
    for path in root.glob("runs/stages/*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        curves[path.parent.name] = [(record["step"], record["loss"]) for record in records]
        assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    assert any(curves.values())
    return curves


def _ours(root: Path) -> Iterator[psutil.Process]:
    """Every process that works under a root: drivers, supervisors, children."""
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), process.environ().get("ABLATE_TEST_ROOT", "")]
        except psutil.Error:
            continue
        if any(str(root) in one for one in told) and process.pid != os.getpid():
            yield process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    _run(root)
    return root


@pytest.mark.parametrize("victim", ["driver", "workers", "both"])
def test_a_study_killed_at_random_moments_ends_in_the_same_results(undisturbed, tmp_path, victim):
    dice = random.Random(f"{SEED}/{victim}")
    env = os.environ | {"ABLATE_TEST_ROOT": str(tmp_path)}
    for _ in range(3):
        driver = subprocess.Popen(_command(tmp_path), env=env, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(dice.uniform(3, 12))
        for process in list(_ours(tmp_path)):
            is_driver = process.pid == driver.pid
            if victim == "both" or is_driver == (victim == "driver"):
                _kill(process)
        if victim == "workers":
            time.sleep(dice.uniform(0, 2))
            driver.send_signal(signal.SIGKILL)
        driver.wait()
    _run(tmp_path)
    assert _results(tmp_path) == _results(undisturbed)
    assert _curves(tmp_path) == _curves(undisturbed)
    assert list(_ours(tmp_path)) == []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
