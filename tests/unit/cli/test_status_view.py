"""`status` and `logs`, as a person meets them: in place, until the run is over, by the names that are shown."""

import io
import json
import threading

import pytest
from rich.console import Console
from support.planned import tutorial_plan
from support.report_study import bench

from ablate.cli import log_view, status_view
from ablate.cli.app import app
from ablate.cli.status_view import StudyStatus
from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.execution import study_lock
from ablate.execution.status import State
from ablate.execution.whereabouts import Whereabouts


def watching(study, **options) -> threading.Thread:
    thread = threading.Thread(target=status_view.watch, args=(study.plan,), kwargs=options)
    thread.start()
    return thread


def test_watch_goes_on_until_the_run_is_over_and_tells_each_change_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(status_view, "EVERY_S", 0.02)
    study = bench(tmp_path)
    with study_lock.held(study.store, "small") as me:
        thread = watching(study, as_json=True)
        thread.join(1)
        assert thread.is_alive()
        study.commit_evaluation(study.plan().cells[0])
        thread.join(1)
    thread.join(30)
    assert not thread.is_alive()
    statuses = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = [sum(cell["state"] == "done" for cell in one["cells"]) for one in statuses]
    assert done[0] == 0
    assert sorted(done) == done
    assert len(statuses) == len(set(done)) + 1  # the last one says that nobody runs it any more
    assert (statuses[0]["driver"], statuses[-1]["driver"]) == (str(me), None)


def test_watch_tells_when_what_stood_in_a_queue_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(status_view, "EVERY_S", 0.0)
    plan = bench(tmp_path).plan()
    place = Whereabouts("a100", "slurm", job="7", is_queued=True)
    places = [place, place, place._replace(is_queued=False), None]
    state_of = status_view.look(plan).state_of
    stands = [
        StudyStatus(
            plan, {**state_of, plan.stages[0].key: State("running", where=where)}, "somebody" if where else None
        )
        for where in places
    ]
    status_view._print_changes(iter(stands).__next__, status_view._print_record)
    words = [json.loads(line)["profiles"] for line in capsys.readouterr().out.splitlines()]
    assert [one and (one[0]["num_running"], one[0]["num_queued"]) for one in words] == [(0, 1), (1, 0), []]


def test_watch_of_what_does_not_run_shows_it_once(tmp_path, capsys):
    status_view.watch(bench(tmp_path).plan, as_json=False)
    assert capsys.readouterr().out.count("no run is on") == 1


@pytest.mark.parametrize("height", [12, 200])
def test_what_is_redrawn_in_place_fits_the_terminal_and_shows_what_needs_a_look_first(tmp_path, height):
    study = bench(tmp_path)
    study.commit_evaluation(study.plan().cells[0])
    failed = study.plan().cells[-1].evaluate
    study.fail(failed, "oom", "out of memory")
    drawn = io.StringIO()
    Console(file=drawn, width=70, no_color=True).print(status_view.short(status_view.look(study.plan()), height))
    lines = drawn.getvalue().splitlines()
    assert len(lines) <= height
    assert failed.key12 in lines[1]
    last = " ".join(" ".join(lines[-2:]).split())
    assert "no run is on" in last
    assert ("more stages" in last) == (height == 12)


def test_a_stage_is_found_by_the_label_that_status_shows(tmp_path):
    plan = bench(tmp_path).plan()
    trained = next(cell for cell in plan.cells if cell.row.name == "lr=0.001")
    assert log_view.find_stage(plan, plan.label(trained.evaluate)) is trained.evaluate
    with pytest.raises(AblateError, match="is several stages of this study\n") as caught:
        log_view.find_stage(plan, "llama/student/finetuned@0")
    assert str(caught.value).count("\n") == 2


def test_a_log_is_followed_that_begins_once_the_stage_has_its_final_key(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(log_view, "PLAN_S", 0.0)
    early = tutorial_plan(tmp_path, "train.max_steps=9", is_fetched=False)  # so that its key is another
    late = tutorial_plan(tmp_path)
    label = "finetune qwen2/student/finetuned@0"
    before, after = (log_view.find_stage(plan, label) for plan in (early, late))
    assert before.is_provisional
    assert before.key != after.key
    attempt = late.store.claim(after.key12)
    disk.write_volatile(attempt.log, "a line\n")
    attempt.write_exit(failure="missing_input", message="there is none")
    plans = iter([early, early, late])
    with study_lock.held(late.store, late.study.name):
        log_view.print_log(plans.__next__, before.key12, is_following=True)
    assert capsys.readouterr().out == "a line\n"


def test_logs_speak_of_the_study_run_last_when_none_is_named(tmp_path):
    with pytest.raises(AblateError, match="no study was run under"):
        app(["logs", "no/cell", "--root", str(tmp_path)], standalone_mode=False)
    with pytest.raises(AblateError, match="small"):
        app(["logs", "small", "no/cell", "--root", str(tmp_path)], standalone_mode=False)
