"""`ablate doctor` tries each thing for real, says what to do, and leaves nothing."""

import json
import re
import subprocess
import sys

import pytest
from support.fake_nvml import GIB, Device, FakeNvml, Process
from support.paths import ROOT

import ablate
from ablate.cli.app import app
from ablate.machine import gpus, lock_folders
from ablate.maintenance import doctor


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "canary-token")


def test_a_fit_machine_has_no_problem_and_nothing_is_left(offline, tmp_path):
    lines = {line.what: line for line in ablate.doctor(root=tmp_path / "not made yet")}
    assert [line for line in lines.values() if line.state == "problem"] == []
    assert {"write and replace", "commit by rename", "hard links", "locks", "libraries", "hub"} <= lines.keys()
    assert lines["a stage"].text.startswith("run in ")
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_written_is_a_problem_and_ends_with_1(offline, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["doctor", "--json", "--root", "/proc"])
    assert ended.value.code == 1
    (line,) = [line for line in json.loads(capsys.readouterr().out) if line["what"] == "file system"]
    assert (line["state"], line["advice"]) == ("problem", "another --root")
    assert list(line) == ["state", "what", "told", "advice"]


def test_each_line_says_its_state_and_a_token_is_never_shown(offline, tmp_path, capsys):
    with pytest.raises(SystemExit):
        app(["doctor", "--root", str(tmp_path)])
    output = capsys.readouterr().out
    assert {line.split()[0] for line in output.splitlines()} <= {"ok", "warning", "problem"}
    assert "token: there is one" in output
    assert "canary" not in output


def test_a_hub_that_does_not_answer_is_a_warning_since_studies_run_without_it(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (line,) = [line for line in doctor._hub() if line.what == "hub"]
    assert line.state == "warning"
    assert line.text.startswith("http://127.0.0.1:9 does not answer: ")


def test_a_library_that_is_too_old_is_a_problem_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["psutil>=999", "no-such-library"])
    lines = {line.what: line for line in doctor._libraries()}
    assert lines["psutil"].advice == "pip install 'psutil>=999'"
    assert lines["no-such-library"].text.startswith("not installed")


def test_a_doctor_imports_no_torch(tmp_path):
    code = (
        "import sys, ablate; from ablate.maintenance.doctor import doctor; from pathlib import Path;"
        f"list(doctor(Path({str(tmp_path)!r}))); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_the_versions_that_were_tested_are_known():
    assert doctor._tested()["torch"]
    assert (ROOT / "constraints.txt").is_file()


def on_cards(monkeypatch, devices: list[Device]) -> dict[str, doctor.Line]:
    monkeypatch.setattr(gpus, "_library", lambda: FakeNvml(devices))
    return {line.what: line for line in doctor._cards()}


def test_each_card_is_told_with_who_is_on_it_and_what_hides_it(monkeypatch, tmp_path):
    monkeypatch.setattr(lock_folders, "TEMPORARY", tmp_path)
    monkeypatch.setattr(lock_folders, "SHARED", tmp_path / "none")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    lines = on_cards(monkeypatch, [Device("GPU-a", processes=[Process(1, 20 * GIB)]), Device("GPU-b")])
    assert re.search(r"64.4 GB of 85.9 GB free; pid 1 of \w+ \(20,480 MiB\)$", lines["card 0"].text)
    assert lines["card 1"].text.endswith("hidden by CUDA_VISIBLE_DEVICES")
    assert lines["driver"].text == "580.65.06"
    assert lines["claims of cards"].state == "ok"
    assert "install -d -o root -m 1777" in lines["claims of cards"].advice
    (folder,) = tmp_path.glob("ablate-locks-*")
    assert list(folder.iterdir()) == []


def test_cards_that_cannot_be_leased_are_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("a file where a folder must be")
    monkeypatch.setattr(lock_folders, "TEMPORARY", tmp_path / "file")
    monkeypatch.setattr(lock_folders, "SHARED", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert on_cards(monkeypatch, [Device("GPU-a")])["claims of cards"].state == "problem"


def test_a_driver_without_a_card_that_answers_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "version").write_text("580")
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")
    assert on_cards(monkeypatch, [Device("GPU-a", is_lost=True)])["cards"].state == "problem"
