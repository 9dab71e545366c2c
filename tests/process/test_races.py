"""Twenty at once for one stage: one result, one commit, and nobody who came too late has failed."""

import contextlib
import fcntl
import io
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.one_stage import STAGE, committed, require_nothing_half, work
from support.toys import drive, ordered, ours, toy, value_of

from ablate.core.errors import HeldError
from ablate.store.kind import KINDS
from ablate.store.store import Store

NUM = 20


def at_once(acts: list[Callable[[], int]]) -> list[int]:
    """Does each in a process of its own, all from the same moment. -> their exit codes."""
    assert KINDS["toy"]  # imported once, not in every process
    start, go = os.pipe()
    pids = [_forked(act, start, go) for act in acts]
    os.close(go)
    exit_codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(start)
    return exit_codes


def _forked(act: Callable[[], int], start: int, go: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.close(go)
        os.read(start, 1)  # ends once nobody can write any more
        with contextlib.redirect_stdout(io.StringIO()):
            code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def one_attempt(root: Path) -> int:
    """-> 0 for the first, 7 for one that came too late."""
    attempt = ordered(root, STAGE)
    work(attempt, lambda: False)
    assert attempt.exit["failure"] == "ok"
    return 7 if "another attempt was first" in attempt.exit["message"] else 0


def require_one_winner(root: Path) -> None:
    assert sorted(at_once([partial(one_attempt, root)] * NUM)) == [0] + [7] * (NUM - 1)
    assert [attempt.number for attempt in Store(root).attempts(STAGE.key12)] == list(range(1, NUM + 1))
    require_nothing_half(root)
    assert json.loads(committed(root)["out/result.json"])["steps"] == STAGE.settings.steps
    assert [path.name for path in root.glob("runs/stages/*")] == [STAGE.folder]
    assert not list(root.glob("runs/attempts/*/*/made"))


def locks_that_lock_nothing() -> None:
    """As on some NFS, Lustre and GPFS: flock succeeds for everyone."""
    fcntl.flock = lambda *_: None


def driver(root: Path, study: str, *, is_locking: bool) -> int:
    if not is_locking:
        locks_that_lock_nothing()
    try:
        return drive(root, [toy(steps=5)], study=study).exit_code
    except HeldError as error:
        return error.exit_code


def require_one_commit(root: Path, exit_codes: list[int], allowed: set[int]) -> None:
    assert set(exit_codes) <= allowed
    assert 0 in exit_codes
    assert len(list(root.glob("runs/stages/*"))) == 1
    assert not (root / "runs/aside").exists()
    assert value_of(root, toy(steps=5))
    exits = [attempt.exit for attempt in Store(root).attempts(toy(steps=5).key12)]
    assert {record["failure"] for record in exits if record} <= {"ok", "cancelled"}
    until = time.monotonic() + 60
    while ours(root) and time.monotonic() < until:
        time.sleep(0.05)
    assert ours(root) == []


@pytest.mark.parametrize("num_rounds", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_of_twenty_attempts_at_one_stage_one_is_committed_and_none_has_failed(num_rounds):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for _ in range(num_rounds):
        with tempfile.TemporaryDirectory(prefix="ablate-tests-", dir=memory) as folder:
            require_one_winner(Path(folder))


@pytest.mark.parametrize("num_rounds", [1, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.parametrize("is_locking", [True, False], ids=["flock", "no flock"])
def test_twenty_studies_that_share_a_stage_all_finish_on_one_commit(tmp_path, is_locking, num_rounds):
    for number in range(num_rounds):
        root = tmp_path / str(number)
        exit_codes = at_once([partial(driver, root, f"study-{n}", is_locking=is_locking) for n in range(NUM)])
        require_one_commit(root, exit_codes, {0})
        shutil.rmtree(root)


@pytest.mark.parametrize("num_rounds", [1, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.parametrize("is_locking", [True, False], ids=["flock", "no flock"])
def test_of_twenty_runs_of_one_study_some_finish_and_the_others_say_who_holds_it(tmp_path, is_locking, num_rounds):
    for number in range(num_rounds):
        root = tmp_path / str(number)
        exit_codes = at_once([partial(driver, root, "toys", is_locking=is_locking)] * NUM)
        require_one_commit(root, exit_codes, {0, 4})
        shutil.rmtree(root)
