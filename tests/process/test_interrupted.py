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
import yaml
from support.processes import command_line, environment
from support.toys import SET_SHORTER, SHORTER, checkpointed, one_table, wait_for

from ablate.cli.app import app
from ablate.maintenance import garbage
from ablate.planning.project import open_study

SEED = 20261124
VICTIMS = ("driver", "workers", "both")
CANARY = "hf_canary0123456789"


def _command(root: Path) -> list[str]:
    return [sys.executable, "-m", "ablate", "--root", str(root), "run", str(one_table(root)), *SET_SHORTER]


def _run(root: Path) -> None:
    done = subprocess.run(_command(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _run_with_token(root: Path) -> set[str]:
    """-> the command lines of all that worked meanwhile."""
    kept = root.with_name(f"{root.name}-token")
    kept.write_text(CANARY)
    tokens = {"HF_TOKEN": CANARY, "HUGGING_FACE_HUB_TOKEN": CANARY, "HF_TOKEN_PATH": str(kept)}
    tokens |= {"HF_ENDPOINT": f"https://user:{CANARY}@localhost:9", "WANDB_API_KEY": CANARY}
    env, log = os.environ | tokens | {"ABLATE_TEST_ROOT": str(root)}, root / "told.txt"
    with log.open("w") as file:
        run = subprocess.Popen(_command(root), env=env, stdout=file, stderr=file)
    seen: set[str] = set()
    while run.poll() is None:
        seen |= {" ".join(command_line(process)) for process in _ours(root)}
        time.sleep(0.5)
    assert run.returncode == 0, log.read_text()
    return seen


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
        words = [*command_line(process), environment(process).get("ABLATE_TEST_ROOT", "")]
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


@pytest.mark.slow
def test_verbs_beside_a_run_and_an_edit_of_its_study_change_nothing_of_it(undisturbed, tmp_path, monkeypatch, capsys):
    """gc, verify, status, two reports at once, export, and a second study that shares stages from beginning to end."""
    monkeypatch.setattr(garbage.find, "__defaults__", (0.0,))  # however young what nobody needs is
    command, root = _command(tmp_path), ["--root", str(tmp_path)]
    study = tmp_path / "study.yaml"
    second = [str(_sharing(study)) if word == str(study) else word for word in command]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for words in (command, second)]
    wait_for(lambda: checkpointed(tmp_path), 120)
    study.write_text(study.read_text().replace("kd_ratio: 0.75", "kd_ratio: 0.25"))  # it goes on with what it has read
    reports = [subprocess.Popen([*command[:5], "report", "tiny"], stdout=subprocess.DEVNULL) for _ in range(2)]
    baseline, exported = "tiny:finetuned_student/student/baseline", tmp_path / "exported"
    app(["export", baseline, str(exported), *root], standalone_mode=False)
    num_rounds = 0
    while any(run.poll() is None for run in runs):
        app(["gc", "--yes", *root], standalone_mode=False)
        assert app(["verify", *root], standalone_mode=False) == 0, capsys.readouterr().out
        app(["status", "tiny", *root], standalone_mode=False)
        num_rounds += 1
    assert num_rounds > 2
    assert (exported / "model.safetensors").is_file()
    assert [process.wait() for process in (*runs, *reports)] == [0, 0, 0, 0], runs[0].stdout.read()
    assert _results(tmp_path) == _results(undisturbed)
    assert _curves(tmp_path).items() >= _curves(undisturbed).items()
    assert (tmp_path / "reports/second/results.csv").read_bytes().count(b"\n") > 4
    changed = open_study(study, tmp_path, SHORTER).changes()
    assert changed == ["since the last run, the study has changed: distill.kd_ratio: 0.75 -> 0.25"]


def _sharing(study: Path) -> Path:
    """-> a study that shares the fine-tunings of another and has one distillation of its own."""
    text = yaml.safe_load(study.read_text())
    text |= {"name": "second", "ablations": {"one": {"set": {"distill.lr": 1e-3}}}}
    path = study.with_name("second.yaml")
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
