"""What is decided by absence on a folder that other machines change: claims, last words, whether a folder is ours."""

import shutil
from pathlib import Path

import pytest
from support.toys import checkpointed, ordered, toy, wait_for

from ablate.core import plain_files
from ablate.execution import attempts
from ablate.execution.executors.launch import start_fresh
from ablate.execution.workers import Workers
from ablate.store.attempt import Attempt
from ablate.store.store import Store


@pytest.mark.timeout(20)
def test_claims_of_another_machine_that_are_not_listed_yet_are_passed_over(tmp_path, monkeypatch):
    numbers = [Store(tmp_path).claim("0123456789ab").number for _ in range(3)]
    monkeypatch.setattr(plain_files, "entries", lambda *_: [])
    assert [*numbers, Store(tmp_path).claim("0123456789ab").number] == [1, 2, 3, 4]


def test_a_last_word_that_cannot_be_seen_yet_is_not_written_over(tmp_path, monkeypatch):
    attempt = ordered(tmp_path, toy())
    attempt.write_exit(failure="ok", message="", at=None, seconds=1.0)
    before = (attempt.path / "exit.json").read_bytes()
    with monkeypatch.context() as late:
        late.setattr(Attempt, "exit", property(lambda _: None))
        late.setattr(plain_files, "is_file", lambda path: path.name != "exit.json" and Path(path).is_file())
        assert "cannot be seen from here yet" in attempts.bury(attempt, Workers()).message
    assert (attempt.path / "exit.json").read_bytes() == before
    assert attempts.bury(attempt, Workers()).failure == "ok"


def test_a_last_word_that_is_damaged_is_written_anew(tmp_path):
    attempt = ordered(tmp_path, toy())
    (attempt.path / "exit.json").write_text("{")
    assert attempts.bury(attempt, Workers()).failure == "killed"
    assert attempt.exit["failure"] == "killed"


def test_a_folder_that_its_file_system_numbers_anew_is_still_its_workers_own(tmp_path):
    attempt = ordered(tmp_path, toy(steps=15, step_s=0.1))
    supervisor = start_fresh(attempt)
    wait_for(lambda: checkpointed(tmp_path))
    shutil.copytree(attempt.path, tmp_path / "copy")
    attempt.path.rename(tmp_path / "as it was")
    (tmp_path / "copy").rename(attempt.path)
    assert supervisor.wait(60) == 0
    assert attempt.exit["failure"] == "ok"
