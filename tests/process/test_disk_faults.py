"""Every operation that a run does to its disk, with every fault: the same command still comes to the same result."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.executors import AtOnce
from support.faulty import KILLS, fails, killed, operations, without_waiting
from support.one_stage import CODES, STAGE, committed, require_nothing_half, work
from support.toys import ordered

from ablate.core import disk
from ablate.core.disk_operations import through
from ablate.execution import attempts, study_lock
from ablate.execution.executors.base import LOCAL
from ablate.execution.fleet import fleet_with
from ablate.execution.workers import Workers
from ablate.store.store import Store


def saving() -> Callable[[], bool]:
    """Asked at every step whether to save (yes), then whether to stop (no)."""
    answers = iter([True, False] * 1000)
    return lambda: next(answers)


class Ended(AtOnce):
    """This machine's executor, where this process was the worker of every attempt: it has ended, and lives on here."""

    name = LOCAL

    def __init__(self) -> None:
        super().__init__([], lambda _: None)


def run(root: Path) -> None:
    """What `ablate run` does to the disk, a checkpoint at every step."""
    store = Store(root)
    store.record_study("toys", {"name": "toys"})
    disk.write_volatile(study_lock.stop_request(store, "toys"), "")
    with study_lock.held(store, "toys"):
        study_lock.beat(store, "toys", 1)
        for dead in attempts.unended(store, STAGE):
            attempts.bury(dead, Workers(fleet_with(Ended())))
        if store.done(STAGE) is None:
            if store.folder(STAGE).exists():
                store.set_aside(STAGE)
            work(ordered(root, STAGE), saving())


def nothing(root: Path) -> None:
    """A new root."""


def a_stopped_attempt(root: Path) -> None:
    work(ordered(root, STAGE), lambda: True)


def a_damaged_result(root: Path) -> None:
    run(root)
    (Store(root).folder(STAGE) / "out/result.json").unlink()


def late(root: Path) -> None:
    """An attempt that comes to its end after another."""
    work(ordered(root, STAGE), lambda: False)


class Scenario(NamedTuple):
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]


SCENARIOS = {
    "new": Scenario(nothing, run),
    "resumed": Scenario(a_stopped_attempt, run),
    "set aside": Scenario(a_damaged_result, run),
    "loser": Scenario(run, late),
}


def leftovers(root: Path) -> Iterator[Path]:
    """Temporary files outside the folders of dead attempts, where a garbage collection finds them."""
    dead = [attempt.path for attempt in Store(root).attempts(STAGE.key12)[:-1]]
    for path in root.rglob(".*"):
        if re.fullmatch(r"\..+\.\d+", path.name) and not any(path.is_relative_to(folder) for folder in dead):
            yield path


class Bench:
    """One scenario, done again and again from the same beginning."""

    def __init__(self, folder: Path, name: str) -> None:
        self.scenario, self.begin, self.root = SCENARIOS[name], folder / "begin", folder / "root"
        self.begin.mkdir()
        with through(without_waiting):
            self.scenario.prepare(self.begin)
            self.reset()
            self.operations = operations(self.act)
        self.expected = committed(self.root)

    def act(self) -> None:
        self.scenario.act(self.root)

    def reset(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.begin, self.root)

    def require_the_same(self) -> None:
        """Nothing half is there; the same command then ends with the same result and leaves nothing behind."""
        is_damaged = self.scenario.prepare is a_damaged_result
        require_nothing_half(self.root, is_damaged=is_damaged)
        with through(without_waiting):
            self.act()
        require_nothing_half(self.root)
        assert committed(self.root) == self.expected
        assert Store(self.root).done(STAGE)
        assert len(list(self.root.glob("runs/stages/*"))) == 1
        assert any(self.root.glob("runs/aside/*")) == is_damaged
        assert list(leftovers(self.root)) == []

    def commit(self) -> int:
        """-> number of the operation after which the result is there for good."""
        stages = self.root / "runs/stages"
        moved = [
            n
            for n, operation in enumerate(self.operations)
            if operation.name == "rename" and operation.paths[-1].parent == stages
        ]
        return next(n for n in range(moved[-1], len(self.operations)) if self.operations[n].name == "fsync_folder")


@pytest.fixture(params=SCENARIOS)
def bench(request):
    """In memory where that is possible: thousands of runs, none of which waits for a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ablate-tests-", dir=memory) as folder:
        yield Bench(Path(folder), request.param)


@pytest.mark.parametrize("how", KILLS)
def test_killed_at_any_operation_the_same_command_comes_to_the_same_result(bench, how):
    for number, operation in enumerate(bench.operations):
        if operation.name not in KILLS[how]:
            continue
        bench.reset()
        killed(bench.act, bench.root, number, how)
        if how.startswith("unsynced") and bench.scenario.act is run and number >= bench.commit():
            assert committed(bench.root) == bench.expected
        bench.require_the_same()


def require_survival(bench: Bench, number: int, name: str, *, is_for_ever: bool) -> None:
    bench.reset()
    code = getattr(errno, name)
    try:
        with through(fails(number, code, is_for_ever=is_for_ever)):
            bench.act()
    except OSError as error:
        assert error.errno == code  # noqa: PT017 (whether it is raised depends on the operation)
    bench.require_the_same()


@pytest.mark.parametrize("is_for_ever", [False, True], ids=["once", "for ever"])
def test_after_an_error_at_any_operation_the_same_command_comes_to_the_same_result(bench, is_for_ever):
    for number in range(len(bench.operations)):
        require_survival(bench, number, CODES[number % len(CODES)], is_for_ever=is_for_ever)


@pytest.mark.soak
@pytest.mark.parametrize("is_for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("name", CODES)
def test_after_each_error_at_each_operation_the_same_command_comes_to_the_same_result(bench, name, is_for_ever):
    for number in range(len(bench.operations)):
        require_survival(bench, number, name, is_for_ever=is_for_ever)


@pytest.mark.parametrize("name", ["EIO", "EEXIST"])
def test_an_operation_that_was_done_but_said_to_have_failed_changes_no_result(bench, name):
    for number, operation in enumerate(bench.operations):
        if name == "EEXIST" and operation.name not in ("link", "mkdir", "rename"):
            continue
        bench.reset()
        with (
            contextlib.suppress(OSError),
            through(fails(number, getattr(errno, name), is_for_ever=False, is_done=True)),
        ):
            bench.act()
        bench.require_the_same()
