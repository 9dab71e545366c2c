"""What every executor keeps: those to choose from, forked workers, and the remote example on a cluster of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.executors import QUICK as OPTIONS
from support.executors import SUBJECTS, Service, drive_on, executor_on
from support.toys import chain, checkpointed, ordered, ours, toy, wait_for

from ablate.core import disk, processes
from ablate.core.failures import Ending
from ablate.execution import attempts
from ablate.execution.executors.base import EXECUTORS, LOCAL, Executor, environment, supervisor_of
from ablate.execution.fleet import fleet_with
from ablate.execution.status import states
from ablate.execution.workers import Workers
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store

COMMAND = "support.executors"


@dataclass
class Subject:
    """One executor, and workers that it placed."""

    name: str
    root: Path
    service: Service | None
    """None: this machine."""
    executors: list[Executor]

    def executor(self) -> Executor:
        """-> another driver's."""
        self.executors.append(executor_on(self.name))
        return self.executors[-1]

    def submitted(self, executor: Executor, stage: Stage, **changed: Any) -> Attempt:
        attempt = ordered(self.root, stage, **self.address(executor.name), **changed)
        executor.submit(attempt)
        executor.look(1)
        return attempt

    def address(self, name: str) -> dict[str, Any]:
        """-> what an attempt's request says of its executor."""
        if name == LOCAL:
            return {}
        return {"executor": name, "profile": {"name": name, "options": dict(OPTIONS)}}

    def driver(self, length: int = 2, step_s: float = 0.05, steps: int = 60) -> "subprocess.Popen[str]":
        """-> a run in a process of its own."""
        words = [self.name, str(self.root), str(length), str(step_s), str(steps)]
        return subprocess.Popen([sys.executable, "-m", COMMAND, *words], stdout=subprocess.PIPE, text=True)

    def elsewhere(self, code: str) -> str:
        """-> what a process without a driver prints."""
        lines = [
            "import sys; from pathlib import Path; import support.executors; from support.toys import chain",
            "from ablate.store.store import Store; store = Store(Path(sys.argv[1]))",
            code,
        ]
        command = [sys.executable, "-c", "\n".join(lines), str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout


QUICK = (LOCAL,)


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SUBJECTS])
def subject(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    service_of = SUBJECTS[request.param].service
    for fixture in SUBJECTS[request.param].wants:
        request.getfixturevalue(fixture)
    with service_of(tmp_path / "cluster") if service_of else contextlib.nullcontext() as service:
        for name, text in service.variables.items() if service else ():
            monkeypatch.setenv(name, text)
        root = tmp_path / "root"
        root.mkdir()
        it = Subject(request.param, root, service, [])
        yield it
        for executor in it.executors:
            executor.close()
    for left in ours(root):
        left.kill()


@pytest.fixture
def executor(subject: Subject) -> Executor:
    return subject.executor()


def wait_until_gone(executor: Executor, attempt: Attempt) -> None:
    wait_for(lambda: executor.poll(attempt) == "gone", 20)


# made


def test_an_executor_bears_the_name_under_which_it_is_found(subject):
    for name in EXECUTORS:
        if name in (LOCAL, subject.name):
            assert EXECUTORS[name](Placing()).name == name


def test_making_one_and_asking_it_starts_nothing(subject):
    before = set(psutil.Process().children(recursive=True))
    executor = subject.executor()
    executor.slots()
    executor.poll(ordered(subject.root, toy()))
    assert set(psutil.Process().children(recursive=True)) == before


def test_there_is_a_slot_for_every_sort_of_work(executor):
    assert {work for slot in executor.slots() for work in slot.takes} == {"online", "light", "heavy"}


def test_of_nothing_at_work_nothing_is_taken(executor):
    assert executor.taken([]) == {}


def test_a_worker_sees_the_card_of_its_slot_the_one_that_a_cluster_assigned_or_none(subject, executor, monkeypatch):
    slots = list(executor.slots())
    if subject.service:
        slots += EXECUTORS[subject.name](Placing(options={"device": "cuda"})).slots()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-this-job")
    for slot in slots:
        visible = environment({"slot": slot.record(), "is_online": False})["CUDA_VISIBLE_DEVICES"]
        assert visible == (slot.gpu or ("GPU-of-this-job" if slot.device == "cuda" else ""))


# there or not


def test_submitting_returns_at_once(subject, executor):
    begun_at = time.monotonic()
    attempt = subject.submitted(executor, toy())
    assert time.monotonic() - begun_at < 1.0
    wait_for(lambda: attempt.exit)


def test_a_worker_is_there_from_its_submission_to_its_end_and_gone_for_good_after(subject, executor):
    attempt = subject.submitted(executor, toy(steps=20, step_s=0.05))
    contacts = set()
    while attempt.exit is None:
        contacts.add(executor.poll(attempt))
        time.sleep(0.01)
    assert contacts == {"alive"}
    assert attempt.exit["failure"] == "ok"
    wait_until_gone(executor, attempt)
    assert {executor.poll(attempt) for _ in range(20)} == {"gone"}


def test_a_worker_that_may_still_come_is_never_gone(subject, executor):
    other = subject.executor()
    if subject.service:
        subject.service.hold()  # it waits in the queue
    attempt, begun_at = subject.submitted(executor, toy(steps=3)), time.monotonic()
    while (
        time.monotonic() - begun_at < (subject.service.late_s + 1 if subject.service else 0.5) and attempt.exit is None
    ):
        assert executor.poll(attempt) == "alive"
        assert other.poll(attempt) == "alive"
        assert Workers().is_live(attempt)
        time.sleep(0.05)
    if subject.service:
        subject.service.release()
    wait_for(lambda: attempt.exit)
    assert attempt.exit["failure"] == "ok"


def test_an_attempt_that_was_never_submitted_comes_to_gone_for_processes_that_ask_once(subject, executor):
    name = executor.name
    gone = processes.identity().model_copy(update={"boot": "an earlier one"})
    extra = {} if name == LOCAL else {"executor": name}
    attempt = ordered(subject.root, toy(), driver=gone.model_dump(), **extra)
    wait_for(lambda: not Workers().is_live(attempt), 20)
    assert {Workers().poll(attempt) for _ in range(20)} == {"gone"}
    (state,) = states([toy()], Store(subject.root)).values()
    assert state.why.startswith("killed: its worker was killed")


def test_a_worker_that_has_ended_is_gone_for_good_for_processes_that_never_saw_it(subject, executor):
    attempt = subject.submitted(executor, toy(fault="hang"))
    wait_for(attempt.metrics.is_file)
    executor.end(attempt)
    wait_until_gone(executor, attempt)
    until = time.monotonic() + (subject.service.late_s + 1 if subject.service else 0.2)
    while time.monotonic() < until:
        assert Workers().poll(attempt) == subject.executor().poll(attempt) == "gone"
        time.sleep(0.05)


def test_who_works_is_said_in_words(subject, executor):
    attempt = subject.submitted(executor, toy(fault="hang"))
    assert executor.describe(attempt)
    wait_for(attempt.metrics.is_file)
    expected = subject.service.who if subject.service else f"pid {supervisor_of(attempt).pid} on "
    wait_for(lambda: executor.describe(attempt).startswith(expected), 5)
    executor.end(attempt)
    wait_until_gone(executor, attempt)


# their ends


def test_an_end_takes_all_that_the_worker_started_and_may_come_twice(subject, executor):
    attempt = subject.submitted(executor, toy(fault="hang"))
    wait_for(attempt.metrics.is_file)
    assert len(ours(subject.root)) >= 2
    executor.end(attempt)
    executor.end(attempt)
    wait_until_gone(executor, attempt)
    executor.end(attempt)
    wait_for(lambda: ours(subject.root) == [], 5)
    assert attempt.exit is None  # without a last word


def test_a_worker_that_has_not_come_yet_can_be_ended(subject, executor):
    attempt = subject.submitted(executor, toy(steps=1000, step_s=0.05))
    attempts.withdraw(attempt, Ending("cancelled", "stopped before it had begun"))
    executor.end(attempt)
    wait_until_gone(executor, attempt)
    wait_for(lambda: ours(subject.root) == [], 20)
    assert not list(subject.root.glob("runs/stages/*"))


def test_another_drivers_executor_sees_a_worker_and_ends_it(subject, executor):
    attempt = subject.submitted(executor, toy(fault="hang"))
    wait_for(attempt.metrics.is_file)
    other = subject.executor()
    assert other.poll(attempt) == "alive"
    other.end(attempt)
    wait_until_gone(other, attempt)
    wait_until_gone(executor, attempt)
    wait_for(lambda: ours(subject.root) == [], 5)


def test_what_a_killed_worker_was_at_is_swept_and_its_last_word_written(subject, executor):
    attempt = subject.submitted(executor, toy(fault="hang"))
    wait_for(attempt.metrics.is_file)
    os.kill(supervisor_of(attempt).pid, signal.SIGKILL)
    wait_until_gone(executor, attempt)
    assert attempts.bury(attempt, Workers(fleet_with(executor))) == Ending("killed", "its worker was killed")
    wait_for(lambda: ours(subject.root) == [], 5)


def test_a_worker_asked_to_stop_saves_a_checkpoint(subject, executor):
    attempt = subject.submitted(executor, toy(steps=1000, step_s=0.02))
    wait_for(lambda: checkpointed(subject.root))
    disk.write_volatile(attempt.stop_request, "")
    wait_for(lambda: attempt.exit, 20)
    assert attempt.exit["failure"] == "cancelled"
    assert checkpointed(subject.root)
    wait_until_gone(executor, attempt)


def test_a_closed_executor_leaves_its_workers_alive(subject, executor):
    attempt = subject.submitted(executor, toy(steps=60, step_s=0.02))
    wait_for(lambda: checkpointed(subject.root))
    executor.close()
    assert subject.executor().poll(attempt) == "alive"
    wait_for(lambda: attempt.exit)
    assert attempt.exit["failure"] == "ok"


# whole studies


def results_of(root: Path) -> dict[str, bytes]:
    """-> the files that stages made, but for what the machine measured."""
    files = [path for name in ("out/result.json", "metrics.jsonl") for path in root.glob(f"runs/stages/*/{name}")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `Subject.driver` makes on this machine when nothing disturbs it."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert drive_on(LOCAL, root, chain(2, steps=60)).exit_code == 0
    return results_of(root)


def test_a_study_ends_with_the_same_bytes_wherever_its_workers_are(subject, undisturbed):
    assert drive_on(subject.name, subject.root, chain(2, steps=60)).exit_code == 0
    assert results_of(subject.root) == undisturbed


def test_only_a_request_for_another_executor_names_it(subject):
    drive_on(subject.name, subject.root, [toy()])
    (request,) = (json.loads(path.read_text()) for path in subject.root.glob("runs/attempts/*/1/attempt.json"))
    assert request.get("executor") == (subject.name if subject.service else None)


@pytest.mark.slow
def test_with_its_driver_killed_a_study_goes_on_under_a_new_one(subject, undisturbed):
    run = subject.driver()
    wait_for(lambda: checkpointed(subject.root))
    run.kill()
    run.wait()
    lines: list[str] = []
    assert drive_on(subject.name, subject.root, chain(2, steps=60), lines.append).exit_code == 0
    assert any("found at work" in line for line in lines)
    assert results_of(subject.root) == undisturbed
    assert [path.name for path in subject.root.glob("runs/attempts/*/*")] == ["1", "1"]


LOOK_AND_STOP = """
from ablate.execution.status import states
from ablate.execution.stop import stop_study
[before] = states(chain(1, steps=400), store).values()
print(before.word)
print("/400 steps" in before.progress)
print(stop_study(store, "toys", is_now={is_now}))
[after] = states(chain(1, steps=400), store).values()
print(after.word)
"""


@pytest.mark.parametrize("is_driver_killed", [False, True])
@pytest.mark.parametrize("is_now", [False, True])
def test_status_and_stop_of_another_process_see_and_end_what_runs(subject, is_driver_killed, is_now):
    run = subject.driver(step_s=0.05, steps=400)
    wait_for(lambda: checkpointed(subject.root))
    if is_driver_killed:
        run.kill()
        run.wait()
    seen = subject.elsewhere(LOOK_AND_STOP.format(is_now=is_now)).splitlines()
    assert seen[:2] == ["running", "True"]
    assert seen[2:] == ["1", "waiting"]
    assert run.wait(5) == (-signal.SIGKILL if is_driver_killed else 75)
    wait_for(lambda: ours(subject.root) == [], 5)
    (attempt,) = Store(subject.root).attempts(chain(1, steps=400)[0].key12)
    assert attempt.exit["failure"] == "cancelled"


def test_asked_to_stop_while_its_first_worker_has_not_come_a_run_leaves_nothing(subject):
    if subject.service:
        subject.service.hold()
    run = subject.driver()
    wait_for(lambda: any(subject.root.glob("runs/attempts/*/1/attempt.json")))
    run.send_signal(signal.SIGINT)
    assert run.wait(20) == 130
    if subject.service:
        subject.service.release()
        time.sleep(0.5)
    assert ours(subject.root) == []
    assert not list(subject.root.glob("runs/stages/*"))
