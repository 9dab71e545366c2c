"""Every look at a worker goes through the executor that placed it, also where that executor is not installed here."""

import ast
from pathlib import Path

import pytest
from support.executors import Instant
from support.paths import PACKAGE
from support.toys import drive, ordered, toy

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.processes import identity
from ablate.execution import attempts, status, stop
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.study_run import RunOptions, run_cells
from ablate.execution.watched import Watched
from ablate.execution.workers import Workers, is_live
from ablate.store.attempt import Attempt
from ablate.store.store import Store


class Scripted(Instant):
    """Answers as it is told to, and keeps what it was asked."""

    def __init__(self, *contacts: str) -> None:
        super().__init__([])
        self.contacts, self.asked = list(contacts), []

    def poll(self, attempt: Attempt) -> str:
        self.asked.append(("poll", attempt))
        return self.contacts.pop(0) if len(self.contacts) > 1 else self.contacts[0]

    def end(self, attempt: Attempt) -> None:
        self.asked.append(("end", attempt))


def of_nobody(root: Path) -> Attempt:
    """An attempt of an executor whose package is gone, by a driver that is gone too."""
    gone = identity().model_copy(update={"boot": "an earlier one"})
    return ordered(root, toy(), executor="slrum", driver=gone.model_dump())


def test_an_attempt_is_asked_of_the_executor_that_its_request_names(tmp_path):
    executor = Scripted("unknown")
    workers = Workers(executor)
    ours, local = ordered(tmp_path, toy(), executor=executor.name), ordered(tmp_path, toy(seed=1))
    assert (workers.poll(ours), workers.poll(local)) == ("unknown", "alive")
    workers.end(ours)
    workers.end(local)
    assert executor.asked == [("poll", ours), ("end", ours)]


def test_a_claim_that_nothing_was_handed_out_for_has_no_worker(tmp_path):
    assert not is_live(Store(tmp_path).claim("0123456789ab"))


def test_a_worker_whose_executor_is_gone_is_never_given_up_as_gone(tmp_path):
    attempt, workers = of_nobody(tmp_path), Workers()
    assert workers.poll(attempt) == "unknown"
    workers.end(attempt)  # nobody knows how
    assert is_live(attempt)
    assert attempts.live(Store(tmp_path), workers, toy()) == attempt
    assert attempt.exit is None


def test_status_says_that_an_executor_is_gone(tmp_path):
    of_nobody(tmp_path)
    (state,) = status.states([toy()], Store(tmp_path)).values()
    assert state.word == "running"
    assert state.progress == (
        "starting; executor 'slrum' is not installed here, so its worker cannot be asked or ended"
    )


def test_stop_asks_such_a_worker_to_end_and_says_that_it_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "NOW_S", 0.2)
    attempt = of_nobody(tmp_path)
    with pytest.raises(AblateError, match="executor 'slrum' is not installed here"):
        stop.stop_study(Store(tmp_path), "toys", is_now=True)
    assert attempt.stop_request.read_text() == "now"
    assert attempt.exit is None


def test_a_run_says_so_and_goes_on_with_a_try_of_its_own_once_it_counts_as_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.watched.LOST_S", 0.3)
    of_nobody(tmp_path)
    lines: list[str] = []
    assert drive(tmp_path, [toy()], write=lines.append).exit_code == 0
    assert any("executor 'slrum' is not installed here" in line for line in lines)
    lost = "no heartbeat for 0.3 s from a worker of executor 'slrum', which cannot be asked"
    assert any(lost in line for line in lines)
    first, second = Store(tmp_path).attempts(toy().key12)
    assert (first.exit, second.exit["failure"]) == (None, "ok")


def test_a_run_refuses_an_executor_that_no_other_process_would_find(monkeypatch):
    monkeypatch.setitem(EXECUTORS._parts, "misnamed", lambda placing: Instant([]))
    with pytest.raises(
        AblateError, match="'misnamed' calls itself 'at_once': `status` and `stop` would ask another one"
    ):
        run_cells(None, RunOptions(executor="misnamed"))


# an attempt that is watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last number is the time."""
    times = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: times[-1])
    return times


def watched(root: Path, executor: Scripted) -> tuple[Watched, Workers]:
    return Watched(ordered(root, toy(), executor=executor.name), is_ours=True), Workers(executor)


def test_hours_in_a_queue_are_no_silence(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("alive", "alive", "unknown", "alive"))
    for hours in (1, 9, 9.001, 20):
        clock.append(1000.0 + 3600 * hours)
        assert one.ending(workers) is None


def test_a_worker_that_cannot_be_asked_for_a_while_is_waited_for_and_then_lost(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("alive", "unknown"))
    for after_s in (1, 30, 60):
        clock.append(1000.0 + after_s)
        assert one.ending(workers) is None
    clock.append(1062.0)
    assert one.ending(workers).failure == "lost"


def test_a_worker_that_cannot_be_asked_is_waited_for_as_long_as_its_heart_beats(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("unknown"))
    for number in range(20):
        clock.append(clock[-1] + 50)
        disk.write_volatile(one.attempt.heartbeat, f"{number}\n")
        assert one.ending(workers) is None


def test_a_worker_that_is_gone_is_swept_after_before_its_last_word_is_written(tmp_path):
    executor = Scripted("gone")
    one, workers = watched(tmp_path, executor)
    assert one.ending(workers).failure == "killed"
    assert executor.asked == [("poll", one.attempt), ("end", one.attempt)]
    assert one.attempt.exit["failure"] == "killed"


def test_nobody_looks_at_a_worker_or_ends_one_past_its_executor():
    """Who works on an attempt, as worker.json names it, means something to the executor that placed it alone."""
    allowed = ("execution/executors/", "execution/remote_example/", "execution/workers.py", "core/processes.py")
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix().startswith(allowed) or path.name == "doctor.py":  # its own child
            continue
        tree = ast.walk(ast.parse(path.read_text()))
        names = {getattr(node, "attr", getattr(node, "id", getattr(node, "name", None))) for node in tree}
        assert not names & {"supervisor_of", "kill_session", "kill_orphans"}, path
