"""Contract of every tracker in the registry, and of what hands a run's news to them: nothing of theirs can stop it."""

import json
import math
import os

import pytest
from support.other_packages import ablate, package
from support.toys import metrics_of, one_table, quiet, toy

from ablate.core import disk
from ablate.core.registry import UnknownName
from ablate.execution.driver import driving
from ablate.execution.executors.local import Local
from ablate.execution.trackers.base import TRACKERS, TrackedAttempt, TrackedRun
from ablate.execution.trackers.metrics_tail import MetricsTail
from ablate.execution.trackers.tracked_listener import TrackedListener, makers_of
from ablate.machine.slots import Placing
from ablate.store.store import Store

NAMES = [*TRACKERS]
ATTEMPT = TrackedAttempt("0123456789ab/1", "toy-0123456789ab", "toy", "a toy", {"steps": 3, "loss": {"name": "jsd"}})


class Recorder:
    """Notes what it hears, and in which process."""

    def __init__(self, run, fails_at=None):
        self.events = []
        self._fails_at = fails_at
        self._hear("begin_run", run)

    def start_attempt(self, attempt):
        self._hear("start_attempt", attempt)

    def log_metrics(self, attempt, step, figures):
        self._hear("log_metrics", attempt, step, figures)

    def end_attempt(self, attempt, phase, message):
        self._hear("end_attempt", attempt, phase, message)

    def end_run(self):
        self._hear("end_run")

    def _hear(self, event, *values):
        self.events.append((event, os.getpid(), *values))
        if event == self._fails_at:
            raise RuntimeError(f"no {event}")


EVENTS = ("begin_run", "start_attempt", "log_metrics", "end_attempt", "end_run")


def run(root, stages, makers, lines=None):
    """-> outcomes of a run that these trackers hear of, by phase."""
    view = quiet((lines if lines is not None else []).append)
    listener = TrackedListener(view, makers, Store(root), "toys", lambda stage: f"label of {stage.folder}")
    executor = Local(Placing(num_jobs=2, uses_fork_server=False))
    with driving(Store(root), "toys", executor, listener) as driver:
        summary = driver.run(stages, lambda stage: stage.settings.steps)
        driver.run(stages, lambda stage: stage.settings.steps)  # as `ablate run` does: it is one run all the same
    listener.close()
    return [outcome.phase for outcome in summary.outcomes.values()]


def recording(**options):
    recorders = []

    def make(run):
        recorders.append(Recorder(run, **options))
        return recorders[-1]

    return make, recorders


# each of the registry


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_takes_a_whole_run_and_one_that_goes_on(tmp_path, name):
    folder = tmp_path / "runs" / "studies" / "toys"
    folder.mkdir(parents=True)
    for _ in range(2):
        tracker = TRACKERS[name](TrackedRun("toys", folder, ""))
        tracker.start_attempt(ATTEMPT)
        tracker.log_metrics(ATTEMPT, 1, {"loss": 0.5, "lr": 1e-4})
        tracker.log_metrics(ATTEMPT, 2, {"loss": math.nan, "grad_norm": math.inf})
        tracker.end_attempt(ATTEMPT, "diverged", "diverged at step 2: loss is nan")
        tracker.end_run()
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} <= {folder}


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_hears_of_a_real_run_and_none_is_left_out(tmp_path, name):
    lines = []
    assert run(tmp_path, [toy(steps=2), toy(steps=3)], makers_of([name]), lines) == ["done", "done"]
    assert not any("left out" in line for line in lines)


# what they hear


def test_trackers_hear_of_a_run_in_order_each_step_once_and_in_the_drivers_process(tmp_path):
    make, recorders = recording()
    stages = [toy(steps=5), toy(steps=3, seed=1)]
    run(tmp_path, stages, {"recorder:there": make})
    [recorder] = recorders
    assert {pid for _, pid, *_ in recorder.events} == {os.getpid()}
    kinds = [event for event, *_ in recorder.events]
    assert (kinds[0], kinds[-1], kinds.count("begin_run"), kinds.count("end_run")) == ("begin_run", "end_run", 1, 1)
    assert recorder.events[0][2] == TrackedRun("toys", Store(tmp_path).study_folder("toys"), "there")
    for stage in stages:
        own = [(event, *values) for event, _, *values in recorder.events[1:-1] if values[0].stage == stage.folder]
        assert [event for event, *_ in own] == ["start_attempt", *["log_metrics"] * stage.settings.steps, "end_attempt"]
        assert [values[1] for event, *values in own if event == "log_metrics"] == metrics_of(tmp_path, stage)
        assert all(isinstance(values[2]["value"], int) for event, *values in own if event == "log_metrics")
        assert own[-1][2:] == ("done", "")
        assert own[0][1].label == f"label of {stage.folder}"
        assert own[0][1].name == f"{stage.key12}/1"
        assert own[0][1].settings["steps"] == stage.settings.steps


def test_a_stage_that_is_tried_again_tells_no_step_twice(tmp_path):
    make, recorders = recording()
    stage = toy(steps=12, step_s=0.05, fault="die", fault_step=8, faults=str(tmp_path / "faults"), num_faults=1)
    assert run(tmp_path, [stage], {"recorder": make}) == ["done"]
    events = [event for event, *_ in recorders[0].events]
    phases = [values[1] for event, _, *values in recorders[0].events if event == "end_attempt"]
    steps = [values[1] for event, _, *values in recorders[0].events if event == "log_metrics"]
    assert events.count("start_attempt") == 2
    assert phases == ["waiting", "done"]
    assert steps == [*range(1, 13)]


def test_what_is_done_already_is_no_attempt(tmp_path):
    run(tmp_path, [toy(steps=2)], {})
    make, recorders = recording()
    run(tmp_path, [toy(steps=2)], {"recorder": make})
    assert [event for event, *_ in recorders[0].events] == ["begin_run", "end_run"]


# whatever they do


@pytest.mark.parametrize("event", EVENTS)
def test_a_tracker_that_raises_is_told_once_and_left_out_and_the_others_and_the_run_go_on(tmp_path, event):
    bad, worse = recording(fails_at=event)
    good, sound = recording()
    lines = []
    assert run(tmp_path, [toy(steps=3), toy(steps=3, seed=1)], {"bad": bad, "good": good}, lines) == ["done", "done"]
    notes = [line for line in lines if "left out" in line]
    assert len(notes) == 1
    assert f"note: the tracker bad is left out: RuntimeError: no {event}" in notes[0]
    assert [one.events[-1][0] for one in worse] == [event] * len(worse)  # one that cannot be made is none
    assert [event for event, *_ in sound[0].events].count("log_metrics") == 6


def test_a_tracker_that_there_is_not_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UnknownName, match=r"unknown tracker 'json'\. Did you mean 'jsonl'"):
        makers_of(["json:there"])
    done = ablate("run", str(one_table(tmp_path)), "--root", str(tmp_path), "--tracker", "json")
    assert done.returncode == 2
    assert "Did you mean 'jsonl'" in done.stderr
    assert not (tmp_path / "runs" / "attempts").exists()


# the one that ships


def test_the_lines_tell_the_run(tmp_path):
    where = tmp_path / "mine.jsonl"
    stage = toy(steps=2)
    run(tmp_path, [stage], makers_of(["jsonl", f"jsonl:{where}"]))
    lines = (Store(tmp_path).study_folder("toys") / "tracker.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["event"] for record in records] == [
        "run_began", "attempt_started", "metrics", "metrics", "attempt_ended", "run_ended",
    ]  # fmt: skip
    assert [record["step"] for record in records if record["event"] == "metrics"] == [1, 2]
    assert records[1]["settings"]["steps"] == 2
    assert all(record["at"] for record in records)
    assert len(where.read_text().splitlines()) == len(lines)


def test_a_number_that_json_has_not_is_text(tmp_path):
    tracker = TRACKERS["jsonl"](TrackedRun("toys", tmp_path, ""))
    tracker.log_metrics(ATTEMPT, 1, {"loss": math.nan, "grad_norm": math.inf})
    last = json.loads((tmp_path / "tracker.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert last["figures"] == {"loss": "NaN", "grad_norm": "Infinity"}


@pytest.mark.slow
def test_a_strangers_tracker_hears_of_a_run(tmp_path):
    code = (
        "class Theirs:\n    def __init__(self, run):\n        print('theirs began', run.study, run.where)\n"
        "    def __getattr__(self, name):\n        return lambda *values: print('theirs', name)\n"
    )
    there = package(
        tmp_path / "there", "their-tracker", {"theirs": code}, {"ablate.trackers": {"theirs": "theirs:Theirs"}}
    )
    done = ablate(
        "run", str(one_table(tmp_path)), "--root", str(tmp_path), "--rehearse", "--only", "*/student/baseline",
        "--tracker", "theirs:here", folders=(there,),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    heard = [line for line in done.stdout.splitlines() if line.startswith("theirs")]
    assert heard[0] == "theirs began tiny-rehearsal here"
    assert heard[-1] == "theirs end_run"
    assert heard.count("theirs start_attempt") == heard.count("theirs end_attempt") > 0


# metrics as they grow


def lines_of(*steps, key="value"):
    return "".join(json.dumps({"step": step, key: step / 2}) + "\n" for step in steps)


def steps_of(tail, path):
    return [step for step, _ in tail.read(path)]


def test_a_line_is_told_once_it_is_whole(tmp_path):
    path, tail = tmp_path / "metrics.jsonl", MetricsTail()
    assert steps_of(tail, path) == []
    path.write_text(lines_of(1, 2) + '{"step": 3, "va')
    assert steps_of(tail, path) == [1, 2]
    path.write_text(lines_of(1, 2, 3))
    assert steps_of(tail, path) == [3]
    assert steps_of(tail, path) == []


def test_a_file_that_was_cut_or_replaced_or_moved_gives_only_what_is_new(tmp_path):
    path, tail = tmp_path / "metrics.jsonl", MetricsTail()
    path.write_text(lines_of(1, 2, 3, 4))
    assert steps_of(tail, path) == [1, 2, 3, 4]
    disk.write(path, lines_of(1, 2))  # a resumed run cuts, in a file of its own
    with path.open("a") as file:
        file.write(lines_of(3, 4, 5, 6))
    assert steps_of(tail, path) == [5, 6]
    path.rename(tmp_path / "committed.jsonl")
    assert steps_of(tail, path) == []
    with (tmp_path / "committed.jsonl").open("a") as file:
        file.write(lines_of(7))
    assert steps_of(tail, tmp_path / "committed.jsonl") == [7]
    assert list(MetricsTail(6).read(tmp_path / "committed.jsonl")) == [(7, {"value": 3.5})]


def test_what_is_no_number_stays_one_and_what_is_missing_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        'no record\n7\n{"step": 1, "loss": "NaN", "grad_norm": "Infinity", "peak_memory": null, "a": "b"}\n'
    )
    [(step, figures)] = MetricsTail().read(path)
    assert step == 1
    assert math.isnan(figures["loss"])
    assert figures == {"loss": figures["loss"], "grad_norm": math.inf}
