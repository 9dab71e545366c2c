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
from support.toys import checkpointed, one_table, wait_for

SMALL = (
    "train.max_steps=40",
    "train.warmup_steps=2",
    "train.checkpoint_every_s=0.2",
    "evaluate.limit=10",
    "data.limit=128",
)
SEED = 20261124
VICTIMS = ("driver", "workers", "both")
CANARY = "hf_canary0123456789"


def _command(root: Path) -> list[str]:
    sets = [part for one in SMALL for part in ("--set", one)]
    return [sys.executable, "-m", "ablate", "--root", str(root), "run", str(one_table(root)), *sets]


def _run(root: Path) -> None:
    done = subprocess.run(_command(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _run_with_token(root: Path) -> set[str]:
    """-> the command lines of all that worked meanwhile."""
    env, log = os.environ | {"HF_TOKEN": CANARY, "ABLATE_TEST_ROOT": str(root)}, root / "told.txt"
    with log.open("w") as file:
        run = subprocess.Popen(_command(root), env=env, stdout=file, stderr=file)
    seen: set[str] = set()
    while run.poll() is None:
        seen |= {" ".join(_line(process)) for process in _ours(root)}
        time.sleep(0.5)
    assert run.returncode == 0, log.read_text()
    return seen


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


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
    """Every process that works under a root: drivers, supervisors, workers."""
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("ABLATE_TEST_ROOT", "")]
        except psutil.Error:
            continue
        if any(str(root) in one for one in words) and process.pid != os.getpid():
            yield process


@pytest.fixture(scope="module")
def commands() -> set[str]:
    """Command lines of the undisturbed run."""
    return set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, commands: set[str]) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    commands |= _run_with_token(root)
    return root


def test_a_token_is_in_no_file_no_report_and_no_command_line(undisturbed, commands):
    files = [path for path in undisturbed.rglob("*") if path.is_file()]
    assert {"told.txt", "log.txt", "results.csv", "study.json", "attempt.json"} <= {path.name for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert any("ablate.execution.supervisor" in command for command in commands)
    assert any("ablate.execution.fork_server" in command for command in commands)
    assert [command for command in commands if CANARY in command] == []


def test_ctrl_c_in_a_terminal_stops_a_run_in_order_and_says_how_to_go_on(tmp_path):
    env = os.environ | {"ABLATE_TEST_ROOT": str(tmp_path)}
    run = subprocess.Popen(_command(tmp_path), env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: checkpointed(tmp_path), 120)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of the foreground's group
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 130, output
    assert f"stopped; to go on: ablate --root {tmp_path} run {tmp_path / 'study.yaml'}" in output
    exits = [json.loads(path.read_text())["failure"] for path in tmp_path.glob("runs/attempts/*/*/exit.json")]
    assert exits.count("cancelled") >= 1
    assert set(exits) <= {"ok", "cancelled"}
    assert list(_ours(tmp_path)) == []


@pytest.mark.parametrize("num_kills", [4, pytest.param(24, marks=pytest.mark.soak)])
def test_a_study_killed_at_random_moments_ends_in_the_same_results(undisturbed, tmp_path, num_kills):
    dice = random.Random(SEED)
    env = os.environ | {"ABLATE_TEST_ROOT": str(tmp_path)}
    for number in range(num_kills):
        victim = VICTIMS[number % len(VICTIMS)]
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
