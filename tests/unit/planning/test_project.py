"""Which study a verb speaks of: as its file says now, or as it was run last."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.local_study import study as study
from support.planned import commit
from support.report_study import bench

from ablate.cli import log_view
from ablate.cli.app import main
from ablate.core import disk
from ablate.core.errors import AblateError, StudyError
from ablate.core.hub import Repo
from ablate.planning.project import open_study, project_of, reopen_study
from ablate.store.hub_lock import Pins

OLD, NEW, ELSEWHERE = "0" * 40, "1" * 40, "2" * 40
QUESTIONS = Repo("dataset", "Rowan/hellaswag")


def _lock(study: Path, *pins: tuple[str, str]) -> None:
    lines = [
        {"type": "dataset", "repo": QUESTIONS.id, "revision": "main", "sha": sha, "endpoint": endpoint}
        for endpoint, sha in pins
    ]
    study.with_suffix(".lock.yaml").write_text(yaml.safe_dump(lines))


def _run(study: Path, *overrides: str, is_rehearsal: bool = False, sha: str = NEW) -> None:
    """As `run` begins."""
    _lock(study, ("https://huggingface.co", sha))
    session = open_study(study, study.parent, overrides, is_rehearsal=is_rehearsal)
    session.record(session.pins(is_online=True), session.plan())


def _revision(plan) -> str:
    return next(stage.settings.revision for stage in plan.stages if getattr(stage.settings, "repo", None))


def _keys(plan) -> list[str]:
    return [stage.key for stage in plan.stages]


def _ablate(study: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate", "--root", str(study.parent), *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)


def _planned(study, **env):
    """-> the process and its wall seconds."""
    began = time.monotonic()
    return _ablate(study, "plan", str(study), "--json", **env), time.monotonic() - began


def test_a_plan_shows_what_run_would_do_and_status_what_was_run(study):
    _run(study, sha=OLD)
    _lock(study, ("https://huggingface.co", NEW))  # pulled from a colleague
    session = open_study(study, study.parent)
    assert _revision(session.plan()) == session.pins(is_online=True).revisions[QUESTIONS] == NEW
    assert _revision(session.plan(is_online=False)) == OLD


@pytest.mark.parametrize(
    ("lock", "recorded", "shown"),
    [([("https://mirror.org", ELSEWHERE)], OLD, ELSEWHERE), ([], OLD, OLD)],
)
def test_a_plan_without_a_hub_is_made_of_what_is_known_and_takes_no_patience(study, lock, recorded, shown):
    _run(study, sha=recorded)
    _lock(study, *lock)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never says a word
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done, took_s = _planned(study, HF_ENDPOINT=url, NO_PROXY="127.0.0.1")
    _, offline_s = _planned(study, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    session = open_study(study, study.parent)
    _lock(study, ("https://huggingface.co", shown))
    assert [stage["key"] for stage in stages] == _keys(session.plan())
    assert took_s < offline_s + 4  # a patient hub takes 10 s a try


def test_a_study_that_was_run_is_shown_when_its_models_and_rows_are_gone(study):
    _run(study)
    before = _keys(open_study(study, study.parent).plan())
    shutil.rmtree(study.parent / "teacher")
    (study.parent / "rows.jsonl").unlink()
    assert _keys(reopen_study(study.parent).plan(is_online=False)) == before
    assert _keys(project_of(study, study.parent).plan(is_online=False)) == before
    with pytest.raises(AblateError, match="no such file or folder"):
        reopen_study(study.parent).plan()


def test_a_plan_and_a_run_digest_anew(study):
    _run(study)
    before = _keys(open_study(study, study.parent).plan())
    (study.parent / "rows.jsonl").write_text('{"instruction": "c", "input": "", "output": "d"}\n')
    session = open_study(study, study.parent)
    assert _keys(session.plan(is_online=False)) == before
    assert _keys(session.plan()) != before
    assert session.pins(is_online=True).digests != reopen_study(study.parent).pins(is_online=False).digests


@pytest.mark.parametrize("edit", ["a line half written", "another name", "gone"])
def test_a_file_that_is_wrong_now_stands_for_what_was_run(study, edit):
    _run(study)
    text = study.read_text()
    if edit == "gone":
        study.rename(study.with_name("named.yaml"))
        study = study.with_name("named.yaml")
        study.unlink()
    else:
        study.write_text(text + "evaluate: {tas" if edit == "a line half written" else "x: [\n" + text)
    session = project_of(study, study.parent)
    assert session.study.name == "named"
    assert "is no valid study now" in session.doubt
    with pytest.raises(StudyError):
        open_study(study, study.parent)


def test_a_wrong_file_that_was_never_run_so_is_told(study):
    _run(study, "distill.lr=0.1")
    assert project_of(study, study.parent, ("distill.lr=0.1",)).doubt is None
    study.write_text(study.read_text() + "evaluate: {tas")
    assert project_of(study, study.parent, ("distill.lr=0.1",)).overrides == ("distill.lr=0.1",)
    for other in ({"overrides": ("distill.lr=0.2",)}, {"is_rehearsal": True}):
        with pytest.raises(StudyError):
            project_of(study, study.parent, **other)


def test_a_rehearsal_is_stopped_as_it_was_started(study):
    _run(study, is_rehearsal=True)
    done = _ablate(study, "stop", str(study), "--rehearse", "--set", "distill.lr=0.1")
    assert (done.returncode, done.stdout) == (0, "stopped 0 stages of named-rehearsal\n")
    assert project_of(Path("named"), study.parent, is_rehearsal=True).study.rehearsal
    study.write_text("name: named\npairs: [")
    done = _ablate(study, "stop", str(study), "--rehearse")
    assert (done.returncode, done.stdout) == (0, "stopped 0 stages of named-rehearsal\n")
    assert "note: " in done.stderr
    assert _ablate(study, "stop", str(study)).returncode == 2  # the study itself was never run


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 2), (errno.ENOSPC, 75), (errno.EDQUOT, 75)])
def test_what_the_machine_refuses_ends_in_one_line(capsys, number, code):
    def call() -> None:
        raise OSError(number, os.strerror(number), "/data/runs")

    with pytest.raises(SystemExit) as caught:
        main(call)
    errors = capsys.readouterr().err
    assert caught.value.code == code
    assert errors.startswith(f"error: /data/runs: {os.strerror(number)}")
    assert errors.count("\n") == 1


def test_a_root_that_cannot_be_made_is_told(study):
    (study.parent / "taken").write_text("a file")
    done = _ablate(study, "run", str(study), "--root", str(study.parent / "taken"), HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(study.parent / "taken") in done.stderr


def test_a_log_that_is_not_there_yet_or_is_empty_is_told(tmp_path, capsys):
    study = bench(tmp_path)
    stage = study.plan().cells[0].evaluate
    attempt = study.store.claim(stage.key12)
    attempt.write_exit(failure="cancelled", message="stopped before it had begun")
    with pytest.raises(AblateError, match="attempt 1 has no log: cancelled stopped before it had begun"):
        log_view.print_log(study.plan, stage.folder)
    disk.write_volatile(attempt.log, "")
    log_view.print_log(study.plan, stage.folder, is_following=True)
    assert capsys.readouterr() == ("", "the log of attempt 1 is empty: cancelled stopped before it had begun\n")
    disk.write_volatile(attempt.log, "a line\n")
    study.fail(stage, "cancelled", "stopped")
    log_view.print_log(study.plan, stage.folder)
    assert capsys.readouterr() == ("a line\n", "attempt 2 has no log: cancelled stopped; of attempt 1:\n")


def test_what_was_recorded_before_there_were_digests_is_read(study):
    _run(study)
    path = study.parent / "runs/studies/named/study.json"
    lacking = ("digests", "contents", "seal")
    path.write_text(
        json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name not in lacking})
    )
    assert reopen_study(study.parent).pins(is_online=False) == Pins({QUESTIONS: NEW}, {}, (), {})


def test_what_rows_held_is_remembered_when_they_are_gone_so_that_results_are_still_found(study):
    _run(study)
    session = open_study(study, study.parent)
    rows = next(stage for stage in session.plan().stages if stage.kind == "rows")
    attempt = session.store.claim(rows.key12)
    attempt.out.mkdir(parents=True)
    disk.write_json(attempt.staging / "stage.json", {"payload": rows.payload})
    session.store.commit(attempt, rows.folder, "the digest of the rows")
    session.record(session.pins(is_online=True), session.plan())
    before = _keys(session.plan(is_online=False))
    shutil.rmtree(session.store.folder(rows))
    session.record(session.pins(is_online=True), session.plan())  # as a run begins that is then broken off
    assert _keys(reopen_study(study.parent).plan(is_online=False)) == before
    assert session.plan().is_provisional  # what is to be run waits for the rows


def test_answers_to_some_of_the_rows_are_still_found_when_the_rows_are_gone(study):
    few = ("distill.answers=teacher", "data.train_on_prompt=false", "distill.max_steps=1", "distill.batch_size=4")
    _run(study, *few)
    session = open_study(study, study.parent, few)
    rows = next(stage for stage in session.plan().stages if stage.kind == "rows")
    counts = {"rows": 100, "tokens": 200, "loss_tokens": 100, "without_loss": 0}
    commit(session.store, rows, "the digest of the rows", summary={"train": counts, "holdout": counts})
    before = session.plan()
    assert next(stage for stage in before.stages if stage.kind == "generate").settings.reads
    session.record(session.pins(is_online=True), before)
    shutil.rmtree(session.store.folder(rows))
    for _ in range(2):
        assert _keys(reopen_study(study.parent).plan(is_online=False)) == _keys(before)
        session.record(session.pins(is_online=True), session.plan())  # as a run begins that is then broken off
