"""`ablate doctor` tries each thing for real, says what to do, and leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ablate
from ablate import fitness
from ablate.cli import app


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "canary-token")


def test_a_fit_machine_has_no_problem_and_nothing_is_left(offline, tmp_path):
    lines = {line.what: line for line in ablate.doctor(root=tmp_path / "not made yet")}
    assert [line for line in lines.values() if line.state == "problem"] == []
    assert {"write and replace", "commit by rename", "hard links", "locks", "libraries", "hub"} <= lines.keys()
    assert lines["a stage"].told.startswith("run in ")
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_is_a_problem_and_ends_with_1(offline, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["doctor", "--json", "--root", "/proc"])
    assert ended.value.code == 1
    (line,) = [line for line in json.loads(capsys.readouterr().out) if line["what"] == "file system"]
    assert (line["state"], line["advice"]) == ("problem", "another --root")


def test_each_line_says_its_state_and_a_token_is_never_shown(offline, tmp_path, capsys):
    with pytest.raises(SystemExit):
        app(["doctor", "--root", str(tmp_path)])
    told = capsys.readouterr().out
    assert {line.split()[0] for line in told.splitlines()} <= {"ok", "warning", "problem"}
    assert "token: there is one" in told
    assert "canary" not in told


def test_a_hub_that_does_not_answer_is_a_warning_since_studies_run_without_it(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (line,) = [line for line in fitness._hub() if line.what == "hub"]
    assert line.state == "warning"
    assert line.told.startswith("http://127.0.0.1:9 does not answer: ")


def test_a_library_that_is_too_old_is_a_problem_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(fitness.importlib.metadata, "requires", lambda _: ["psutil>=999", "no-such-library"])
    lines = {line.what: line for line in fitness._libraries()}
    assert lines["psutil"].advice == "pip install 'psutil>=999'"
    assert lines["no-such-library"].told.startswith("not installed")


def test_a_doctor_imports_no_torch(tmp_path):
    code = (
        "import sys, ablate; from ablate.fitness import doctor; from pathlib import Path;"
        f"list(doctor(Path({str(tmp_path)!r}))); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False False\n"


def test_the_versions_that_were_tested_are_known():
    assert fitness._tested()["torch"]
    assert Path(fitness.__file__).parents[1].joinpath("constraints.txt").is_file()
