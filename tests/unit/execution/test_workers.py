"""Every look at a worker goes through the executor that placed it, also where that executor is not installed here."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
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
from ablate.execution.fleet import fleet_with
from ablate.execution.profiles import Profile
from ablate.execution.study_run import RunOptions, run_cells
from ablate.execution.watched import Watched
from ablate.execution.workers import Workers
from ablate.machine.slots import Placing
from ablate.maintenance import garbage, verify
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
    workers = Workers(fleet_with(executor))
    ours, local = ordered(tmp_path, toy(), executor=executor.name), ordered(tmp_path, toy(seed=1))
    assert (workers.poll(ours), workers.poll(local)) == ("unknown", "alive")
    workers.end(ours)
    workers.end(local)
    assert executor.asked == [("poll", ours), ("end", ours)]


def test_a_claim_that_nothing_was_handed_out_for_has_no_worker(tmp_path):
    assert not Workers().is_live(Store(tmp_path).claim("0123456789ab"))


def test_a_worker_whose_executor_is_gone_is_never_given_up_as_gone(tmp_path):
    attempt, workers = of_nobody(tmp_path), Workers()
    assert workers.poll(attempt) == "unknown"
    workers.end(attempt)  # nobody knows how
    assert workers.is_live(attempt)
    assert attempts.live(Store(tmp_path), workers, toy()) == attempt
    assert attempt.exit is None


class Brokendown(Exception):
    """What a stranger's executor raises."""


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[Placing]:
    """An executor "slrum" that cannot be made; how often that was tried."""
    tries: list[Placing] = []

    def make(placing: Placing) -> Instant:
        tries.append(placing)
        raise Brokendown("no sbatch on this host")

    monkeypatch.setitem(EXECUTORS._parts, "slrum", make)
    return tries


def test_an_executor_that_cannot_be_made_takes_nothing_down_with_it(tmp_path, broken):
    attempt, workers = of_nobody(tmp_path), Workers()
    assert workers.poll(attempt) == "unknown"
    workers.end(attempt)
    assert workers.is_live(attempt)
    assert workers.describe(attempt) == "a worker of executor 'slrum'"
    why = "executor 'slrum' cannot be used here (Brokendown: no sbatch on this host), so its worker cannot be asked"
    assert workers.problem(attempt).startswith(why)
    assert len(broken) == 1  # it is not tried at every look
    (state,) = status.states([toy()], Store(tmp_path)).values()
    assert (state.word, state.progress.startswith(f"starting; {why}")) == ("running", True)
    assert {piece.path for piece in garbage.find(Store(tmp_path), garbage.References(frozenset()), 0)} == set()
    assert verify.verify(verify.parts(Store(tmp_path))) == []


def test_a_run_on_this_machine_goes_on_past_an_executor_that_cannot_be_made(tmp_path, broken, monkeypatch):
    monkeypatch.setattr("ablate.execution.watched.LOST_S", 0.3)
    of_nobody(tmp_path)
    lines: list[str] = []
    assert drive(tmp_path, [toy()], write=lines.append).exit_code == 0
    assert any("executor 'slrum' cannot be used here (Brokendown: no sbatch" in line for line in lines)


def test_a_look_at_all_attempts_makes_each_executor_once(tmp_path, monkeypatch):
    times: list[Placing] = []

    def make(placing: Placing) -> Scripted:
        times.append(placing)
        return Scripted("alive")

    monkeypatch.setitem(EXECUTORS._parts, "slrum", make)
    stages, store = [toy(seed=seed) for seed in range(3)], Store(tmp_path)
    for stage in stages:
        ordered(tmp_path, stage, executor="slrum")
    looks = [
        lambda: status.states(stages, store),
        lambda: garbage.find(store, garbage.References(frozenset()), 0),
        lambda: verify.verify(verify.parts(store)),
    ]
    for num_times, look in enumerate(looks, start=1):
        look()
        assert len(times) == num_times


def test_workers_of_this_machine_are_asked_without_a_look_at_what_other_packages_offer(tmp_path):
    code = """
import sys
from pathlib import Path
from ablate.core.registry import Registry
def load(self):
    sys.exit(f"{self.noun}s were loaded")
from ablate.machine.slots import Placing
from ablate.maintenance import garbage, verify
from ablate.store.attempt import Attempt
from ablate.execution.workers import Workers
Registry._load = load
attempt, workers = Attempt(Path(sys.argv[1])), Workers()
print(workers.poll(attempt), workers.problem(attempt), workers.is_local(attempt))
workers.end(attempt)
"""
    attempt = ordered(tmp_path, toy())
    command = [sys.executable, "-c", code, str(attempt.path)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (asked.stdout, asked.stderr) == ("alive None True\n", "")


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


def registered(monkeypatch: pytest.MonkeyPatch, *contacts: str) -> Scripted:
    """-> an executor "told", as every process would make it."""
    executor = Scripted(*contacts)
    executor.name = "told"
    monkeypatch.setitem(EXECUTORS._parts, executor.name, lambda placing: executor)
    return executor


def test_stop_says_of_a_worker_that_cannot_be_asked_that_it_may_go_on_and_has_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "NOW_S", 0.2)
    executor = registered(monkeypatch, "unknown")
    attempt = ordered(tmp_path, toy(), executor=executor.name)
    with pytest.raises(AblateError, match=r"has not ended yet, .*:\n.*/1: nothing can be heard of nobody$"):
        stop.stop_study(Store(tmp_path), "toys", is_now=True)
    assert attempt.stop_request.read_text() == "now"
    assert ("end", attempt) in executor.asked
    assert attempt.exit is None  # nobody knows


def test_stop_ends_a_job_that_waits_in_a_queue(tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "NOW_S", 0.2)
    executor = registered(monkeypatch, "alive")
    attempt = ordered(tmp_path, toy(), executor=executor.name)
    assert stop.stop_study(Store(tmp_path), "toys", is_now=True) == 1
    assert ("end", attempt) in executor.asked
    assert attempt.exit["failure"] == "cancelled"


ELSEWHERE = identity().model_copy(update={"host": "elsewhere"})


def test_stop_does_not_wait_for_a_worker_of_another_host_that_has_not_come_yet(tmp_path):
    attempt, begun_at = ordered(tmp_path, toy(), driver=ELSEWHERE.model_dump()), time.monotonic()
    assert stop.stop_study(Store(tmp_path), "toys") == 1
    assert time.monotonic() - begun_at < 5
    assert attempt.stop_request.read_text() == ""
    assert attempt.exit is None  # its driver may start it still, and it finds the request


def test_stop_waits_for_a_worker_of_another_host_and_says_that_it_has_not_seen_it_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "NOW_S", 0.2)
    attempt = ordered(tmp_path, toy(), driver=ELSEWHERE.model_dump())
    disk.write_volatile(attempt.worker, ELSEWHERE.model_dump_json())
    with pytest.raises(AblateError, match=rf"/1: nothing can be heard of pid {ELSEWHERE.pid} on elsewhere$"):
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
        run_cells(None, RunOptions(profiles=(Profile("misnamed", "misnamed"),)))


# an attempt that is watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last number is the time."""
    times = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: times[-1])
    return times


def watched(root: Path, executor: Scripted) -> tuple[Watched, Workers]:
    return Watched(ordered(root, toy(), executor=executor.name), is_ours=True), Workers(fleet_with(executor))


def test_hours_in_a_queue_are_no_silence(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("alive", "alive", "unknown", "alive"))
    for hours in (1, 9, 9.001, 20):
        clock.append(1000.0 + 3600 * hours)
        assert one.ending(workers) is None


def sign(attempt: Attempt) -> None:
    disk.write_volatile(attempt.worker, ELSEWHERE.model_dump_json())


def test_a_worker_that_cannot_be_asked_for_a_while_is_waited_for_and_then_lost(tmp_path, clock):
    one, workers = watched(tmp_path, executor := Scripted("alive", "unknown"))
    sign(one.attempt)
    for after_s in (1, 30, 60):
        clock.append(1000.0 + after_s)
        assert one.ending(workers) is None
    clock.append(1062.0)
    assert one.ending(workers).failure == "lost"
    assert executor.asked[-1] == ("end", one.attempt)  # for when it can be told
    assert one.attempt.exit is None


def test_of_a_worker_that_has_not_begun_an_outage_says_nothing_for_an_hour(tmp_path, clock):
    one, workers = watched(tmp_path, executor := Scripted("alive", "unknown"))
    for after_s in (0, 60, 600, 3599):
        clock.append(1000.0 + after_s)
        assert one.ending(workers) is None
    assert ("end", one.attempt) not in executor.asked
    clock.append(1000.0 + 3601)
    ending = one.ending(workers)
    assert ending.failure == "lost"
    assert ending.message.startswith("no heartbeat for 3600 s from nobody, which cannot be asked")
    assert executor.asked[-1] == ("end", one.attempt)


def test_a_worker_that_comes_during_an_outage_has_its_time_from_then_on(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("alive", "unknown"))
    for after_s in (0, 1800):
        clock.append(1000.0 + after_s)
        assert one.ending(workers) is None
    sign(one.attempt)
    for after_s in (1802, 1860):
        clock.append(1000.0 + after_s)
        assert one.ending(workers) is None
    clock.append(1000.0 + 1863)
    assert one.ending(workers).failure == "lost"


def test_a_worker_that_cannot_be_asked_is_waited_for_as_long_as_its_heart_beats(tmp_path, clock):
    one, workers = watched(tmp_path, Scripted("unknown"))
    for number in range(20):
        clock.append(clock[-1] + 50)
        disk.write_volatile(one.attempt.heartbeat, f"{number}\n")
        assert one.ending(workers) is None


def test_the_longer_a_stage_has_run_on_a_cluster_the_rarer_it_is_looked_at_until_it_is_to_end(tmp_path, clock):
    one, workers = watched(tmp_path, executor := Scripted("alive"))
    sign(one.attempt)
    one.look_soon()

    def num_looks_in_a_minute() -> int:
        before = len(executor.asked)
        for number in range(600):
            clock.append(clock[-1] + 0.1)
            if number % 100 == 0:
                disk.write_volatile(one.attempt.heartbeat, f"{len(clock)}\n")
            assert one.ending(workers) is None
        return len(executor.asked) - before

    assert 25 <= num_looks_in_a_minute() <= 31
    clock.append(clock[-1] + 1000)
    disk.write_volatile(one.attempt.heartbeat, "late\n")
    assert 11 <= num_looks_in_a_minute() <= 13
    one.look_soon()
    assert 25 <= num_looks_in_a_minute() <= 31


def test_a_worker_that_is_gone_is_swept_after_before_its_last_word_is_written(tmp_path):
    executor = Scripted("gone")
    one, workers = watched(tmp_path, executor)
    assert one.ending(workers).failure == "killed"
    assert executor.asked == [("poll", one.attempt), ("end", one.attempt)]
    assert one.attempt.exit["failure"] == "killed"


EXECUTORS_OWN = (
    "execution/executors/",
    "execution/pilots/",
    "execution/remote_example/",
    "execution/workers.py",
    "core/processes.py",
)
"""Who works on an attempt, as worker.json names it, means something to the executor that placed it alone."""
OTHERS: dict[str, dict[str, str]] = {
    "execution/driver_records.py": {"contact": "the driver of a study, by its own record"},
    "execution/detached/hosts/local.py": {
        "contact": "a driver that it has started",
        "kill_session": "of that driver, which has one of its own",
    },
    "execution/slurm/steps.py": {"kill_session": "of a step that it has started"},
    "maintenance/garbage.py": {"contact": "another garbage collection, by its trash folder"},
    "maintenance/doctor.py": {"kill_session": "a child of its own"},
    "core/descendants.py": {"send": "to its own, and to whoever has the mark of an attempt that an executor ends"},
    "execution/supervisor.py": {
        "worker": "it signs there, and its child is called so",
        "send": "to that child",
        "contact": "the pilot that it ends with",
        "supervisor_of": "itself: whether the folder is still its own",
    },
}
"""Module -> what it may use all the same, and why."""


def looks_past_executors(path: Path) -> Iterator[str]:
    """-> what a module uses that looks at a worker, or speaks to one."""
    functions = {"contact", "send", "kill_session", "kill_orphans", "kill_marked", "supervisor_of"}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names if alias.name in functions)
            case ast.Attribute(value=ast.Name(id="processes"), attr=name) if name in functions:
                yield name
            case ast.Attribute(value=ast.Attribute(attr="worker"), attr="send"):
                yield "send"
            case ast.Attribute(attr="worker") | ast.Constant(value="worker.json"):
                yield "worker"
            case ast.Attribute(attr="supervisor_of" | "kill_session" | "kill_orphans" | "kill_marked" as name):
                yield name


def test_nobody_looks_at_a_worker_or_ends_one_past_its_executor():
    used: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if (
            not name.startswith(EXECUTORS_OWN)
            and name != "store/attempt.py"
            and (looks := set(looks_past_executors(path)))
        ):
            used[name] = looks
    assert used == {name: set(reasons) for name, reasons in OTHERS.items()}


@pytest.mark.parametrize(
    "line",
    [
        "from ablate.core.processes import contact",
        "processes.contact(who)",
        "processes.send(who, signal.SIGTERM)",
        "attempt.worker.read_bytes()",
        'attempt.path / "worker.json"',
        "base.supervisor_of(attempt)",
        "processes.kill_orphans(who, attempt.path)",
    ],
)
def test_a_look_past_the_executor_is_seen(tmp_path, line):
    (tmp_path / "new.py").write_text(line)
    assert [*looks_past_executors(tmp_path / "new.py")]
