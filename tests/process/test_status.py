"""What `status`, `stop` and the live view tell, from files alone."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.toys import TOYS, chain, checkpointed, drive, ordered, ours, toy, wait_for

from ablate.core import disk, processes
from ablate.core.text import duration
from ablate.execution import status, study_lock
from ablate.execution.executors.launch import start_fresh
from ablate.execution.live_view import LiveTable, PlainLog, Tally
from ablate.execution.outcomes import Outcome
from ablate.execution.stop import stop_study
from ablate.planning.timing import Timing
from ablate.stages.toy import ToySettings
from ablate.store.progress import progress_of
from ablate.store.stage import Stage
from ablate.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def state_of(store: Store, *stages):
    states = status.states(stages, store)
    return [states[stage.key] for stage in stages]


def test_every_stage_of_a_study_has_a_state_and_a_reason(store):
    bad, good = toy(seed=1, fault="denied"), toy(seed=2)
    after, far = toy(bad), toy(toy(bad), good)
    stages = [bad, good, after, far]
    assert [state.word for state in state_of(store, *stages)] == ["waiting"] * 4
    drive(store.root, stages)
    failed, done, blocked, far_blocked = state_of(store, *stages)
    assert (failed.word, done.word, blocked.word, far_blocked.word) == ("failed", "done", "blocked", "blocked")
    assert failed.why.startswith("denied: told to be denied (ask for access on the repository's page")
    assert "told to be denied" in failed.log_tail[-1]
    assert blocked.why == f"needs {bad.folder}, which failed: {failed.why}"
    assert far_blocked.why == blocked.why
    assert done.is_over
    assert not failed.is_over


def test_a_model_whose_training_diverged_is_told_so_and_what_is_trained_on_it_is_blocked(store):
    teacher = toy(fault="diverge", fault_step=4)
    assert drive(store.root, [teacher]).exit_code == 0
    student = Stage("distill", 1, ToySettings(), {"teacher_adapter": teacher})
    judged = Stage("evaluate", 1, ToySettings(), {"adapter_0": teacher})
    on_top = Stage("evaluate", 1, ToySettings(), {"adapter_0": teacher, "adapter_1": student})
    states = state_of(store, teacher, student, judged, on_top)
    assert [state.word for state in states] == ["diverged", "blocked", "diverged", "blocked"]
    assert states[2].why == "diverged at step 4: loss is nan"
    assert states[1].why == states[3].why == f"needs {teacher.folder}, which diverged at step 4: loss is nan"


def test_a_study_whose_teacher_diverged_ends_as_one_that_lacks_something(store):
    teacher = toy(fault="diverge", fault_step=4)
    after = toy(teacher)
    summary = drive(store.root, [teacher, after])
    assert summary.exit_code == 1
    assert summary.outcomes[after.key].message == state_of(store, teacher, after)[1].why


def test_a_running_stage_tells_its_step_and_when_it_will_be_over(store):
    attempt = ordered(store.root, stage := toy(steps=100, step_s=0.05))
    supervisor = start_fresh(attempt)
    wait_for(lambda: (progress := progress_of(attempt)) and progress.done > 3)
    (state,) = state_of(store, stage)
    assert state.word == "running"
    assert state.total == 100
    assert 0 < state.step < 100
    assert 0 < state.eta_s < 20
    assert state.progress.startswith(f"{state.step}/100 steps, loss 0.")
    disk.write_volatile(attempt.stop_request, "now")
    supervisor.wait(10)


def test_a_killed_stage_is_told_from_a_stopped_one(store):
    for stage, how in ((toy(seed=1, fault="hang"), "kill"), (toy(seed=2, fault="hang"), "stop")):
        attempt = ordered(store.root, stage)
        supervisor = start_fresh(attempt)
        wait_for(attempt.metrics.is_file)
        supervisor.kill() if how == "kill" else disk.write_volatile(attempt.stop_request, "now")
        supervisor.wait(10)
    killed, stopped = state_of(store, toy(seed=1), toy(seed=2))
    assert (killed.word, stopped.word) == ("failed", "waiting")
    assert killed.why.startswith("killed: its worker was killed")
    assert stopped.why.endswith("the same command goes on")


def start(root: Path, way: str = "fresh") -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(TOYS), str(root), "2", "0.05", way, "400"], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("is_now", [False, True])
def test_stop_ends_a_run_and_its_workers(store, is_now):
    run = start(store.root)
    wait_for(lambda: checkpointed(store.root))
    assert stop_study(store, "toys", is_now=is_now) == 1
    assert run.wait(5) == 75
    assert ours(store.root) == []
    assert state_of(store, *chain(1, steps=400))[0].word == "waiting"


@pytest.mark.parametrize("is_now", [False, True])
def test_stop_also_ends_what_a_killed_run_left_behind(store, is_now):
    run = start(store.root)
    wait_for(lambda: checkpointed(store.root))
    run.kill()
    run.wait()
    assert stop_study(store, "toys", is_now=is_now) == 1
    assert ours(store.root) == []
    assert Store(store.root).attempts(chain(1, steps=400)[0].key12)[0].exit["failure"] == "cancelled"


def test_stop_leaves_other_studies_alone(store):
    run = start(store.root)
    wait_for(lambda: checkpointed(store.root))
    assert stop_study(store, "another") == 0
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    run.wait(10)


def test_no_process_is_taken_for_ours_that_only_has_its_pid(store):
    me = processes.identity()
    bystander = subprocess.Popen(["sleep", "60"])
    real = processes.identity(bystander.pid)
    for changed in ({"started": real.started - 1}, {"boot": "another"}, {"host": "another"}, {"namespace": "pid:[1]"}):
        taken = real.model_copy(update=changed)
        assert processes.contact(taken) in ("gone", "unknown")
        processes.send(taken, signal.SIGKILL)
        processes.kill_session(taken)
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.2)
    assert processes.contact(me) == "alive"
    bystander.kill()
    bystander.wait()
    assert processes.contact(real) == "gone"


def test_a_driver_that_was_killed_holds_nothing(store):
    run = start(store.root)
    wait_for(lambda: study_lock.driver_of(store, "toys"))
    run.kill()
    run.wait()
    with study_lock.held(store, "toys") as me:
        assert study_lock.driver_of(store, "toys") == me
    assert study_lock.driver_of(store, "toys") is None
    stop_study(store, "toys", is_now=True)


# the view


def test_plain_lines_tell_starts_ends_and_failures(store):
    lines = []
    bad = toy(seed=1, fault="error")
    drive(store.root, [toy(), bad, toy(bad)], write=lines.append)
    text = [line.split(" ", 1)[1].partition("  [")[0] for line in lines]
    assert text[0] == "3 of 3 stages to do"
    assert f"started  {bad.folder}  ({bad.folder})" in text
    assert f"failed  {bad.folder}: told to fail at step 1" in text
    assert not any("\x1b" in line for line in lines)


def test_a_progress_line_comes_after_a_while(store, monkeypatch):
    monkeypatch.setattr("ablate.execution.live_view.TELL_EVERY_S", 0.0)
    attempt = ordered(store.root, toy(steps=5))
    start_fresh(attempt).wait(10)
    lines = []
    view = PlainLog(Tally(lambda _: 1.0, 1), lambda stage: stage.folder, lines.append)
    view.tick({"key": attempt})
    assert lines[1].endswith("a toy: 5/5 steps, loss 0.2")


def test_the_live_table_shows_what_runs(store):
    attempt = ordered(store.root, toy(steps=5))
    start_fresh(attempt).wait(10)
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=100, no_color=True)
    view = LiveTable(Tally(lambda _: 1.0, 1), lambda stage: stage.folder, console)
    view.begin([toy(steps=5)], ())
    view.tick({"key": attempt})
    view.close()
    assert "5/5 steps, loss 0.2" in drawn.getvalue()
    assert "0/1 stages" in drawn.getvalue()


def test_the_time_left_follows_what_was_measured():
    first, second = toy(seed=1), toy(seed=2)
    timing = Timing()
    tally = Tally(lambda _: 10.0, 1, timing)
    tally.begin([first, second], ())
    assert tally.eta_s({}) is None
    tally.start(first)
    tally.end(first, Outcome("done"))
    timing.add("toy", 10.0, 0.2)
    assert tally.eta_s({}) == pytest.approx(0.2)
    tally.end(second, Outcome("waiting", "network", "to be tried again"))
    assert tally.num_over == 1


def test_the_time_left_is_that_of_what_is_not_done_and_never_less_than_the_longest_chain():
    timing = Timing()
    timing.add("toy", 10.0, 10.0)
    first = toy(seed=1)
    second, third = toy(first), toy(seed=3)
    tally = Tally(lambda _: 60.0, 200, timing)
    tally.begin([first, second, third], ())
    assert tally.eta_s({}) == pytest.approx(120)
    tally.begin([first, second, third], {first.key})
    assert tally.num_over == 1
    assert tally.eta_s({}) == pytest.approx(60)
    tally.begin([first, second, third], {first.key, second.key, third.key})
    assert tally.eta_s({}) == 0


def test_durations_are_short():
    texts = [duration(seconds) for seconds in (3, 89, 100, 3000, 7800)]
    assert texts == ["3 s", "89 s", "2 min", "50 min", "2 h 10 min"]
