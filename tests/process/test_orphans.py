"""Whatever a stage started is gone when it has ended: after setsid, after a double fork, deaf to SIGTERM."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.toys import drive, ordered, toy, wait_for

from ablate.core import descendants, processes
from ablate.execution import attempts
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.launch import ForkServer, start_fresh
from ablate.execution.stop import stop_study
from ablate.execution.workers import Workers
from ablate.store.attempt import Attempt
from ablate.store.store import Store

BARE = """
import sys
from ablate.execution import fork_server
fork_server.warm_up = lambda: None
fork_server.main(int(sys.argv[1]), int(sys.argv[2]))
"""


class BareForkServer(ForkServer):
    """A program of its own as in a run, without the imports that toys do not need."""

    def _command(self, handle: int) -> list[str]:
        return [sys.executable, "-c", BARE, str(handle), str(os.getpid())]


def logged(attempt: Attempt) -> list[int]:
    text = attempt.log.read_text() if attempt.log.is_file() else ""
    return [int(pid) for pid in re.findall(r"daemon (\d+)", text)]


def daemons(attempt: Attempt) -> list[processes.Identity]:
    """-> those that live of the two that a toy has left, as its log names them."""
    return [one for pid in logged(attempt) if (one := processes.identity(pid))]


def begun(attempt: Attempt) -> list[processes.Identity]:
    wait_for(lambda: len(daemons(attempt)) == 2)
    return daemons(attempt)


def are_gone(those: list[processes.Identity]) -> bool:
    return all(processes.contact(one) == "gone" for one in those)


@pytest.mark.parametrize("steps", [1, 2])
def test_what_was_made_to_outlive_a_stage_is_gone_when_it_ends(tmp_path, steps):
    attempt = ordered(tmp_path, toy(steps=steps, fault="daemons"))
    start_fresh(attempt).wait(60)
    assert attempt.exit["failure"] == "ok"
    assert len(logged(attempt)) == 2
    assert [pid for pid in logged(attempt) if processes.identity(pid)] == []


def test_what_was_made_to_outlive_a_failed_or_killed_worker_is_gone_when_its_supervisor_ends(tmp_path):
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.05, fault="daemons"))
    supervisor = start_fresh(attempt)
    those = begun(attempt)
    worker = next(one for one in psutil.Process(supervisor.pid).children() if one.pid not in [p.pid for p in those])
    worker.kill()
    supervisor.wait(60)
    assert attempt.exit["failure"] == "killed"
    assert are_gone(those)


def test_what_was_made_to_outlive_a_stage_is_gone_when_it_was_stopped(tmp_path):
    for seed, is_now in enumerate((False, True)):
        attempt = ordered(tmp_path, toy(seed=seed, steps=1000, step_s=0.05, fault="daemons"))
        supervisor = start_fresh(attempt)
        those = begun(attempt)
        assert stop_study(Store(tmp_path), "toys", is_now=is_now) == 1
        supervisor.wait(60)
        assert are_gone(those)


@pytest.mark.parametrize("is_forked", [False, True], ids=["fresh", "forked"])
def test_what_outlives_a_killed_supervisor_is_gone_after_the_next_run(tmp_path, is_forked):
    stage = toy(steps=1000, step_s=0.05, fault="daemons")
    attempt = ordered(tmp_path, stage)
    server = BareForkServer() if is_forked else None
    if server:
        server.ask(attempt)
    else:
        start_fresh(attempt)
    those = begun(attempt)
    processes.send(supervisor_of(attempt), signal.SIGKILL)
    wait_for(lambda: processes.contact(supervisor_of(attempt)) == "gone")
    stranger = subprocess.Popen(["sleep", "60"], cwd=attempt.path)
    assert not are_gone(those)
    assert drive(tmp_path, [toy(steps=1000)]).exit_code == 0
    assert are_gone(those)
    assert stranger.poll() is None  # whoever only looks into the folder
    stranger.kill()
    stranger.wait()
    if server:
        server.close()


def test_nobody_is_taken_for_an_orphan_who_has_another_mark_or_none(tmp_path):
    mark = descendants.mark_of(tmp_path / "1")
    environments = {"ours": mark, "longer": f"{mark}0", "another": descendants.mark_of(tmp_path / "11")}
    started = {
        name: subprocess.Popen(["sleep", "60"], env=os.environ | {descendants.MARK: value}, start_new_session=True)
        for name, value in environments.items()
    }
    plain = subprocess.Popen([sys.executable, "-c", f"import time; '{descendants.MARK}={mark}'; time.sleep(60)"])
    descendants.kill_marked(mark)
    assert started.pop("ours").wait(10) == -signal.SIGKILL
    assert [one.poll() for one in (*started.values(), plain)] == [None, None, None]
    for one in (*started.values(), plain):
        one.kill()
        one.wait()


def test_a_supervisor_keeps_no_dead_of_its_stage(tmp_path):
    """Orphans that end meanwhile are not left as zombies for as long as a training takes."""
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.05, fault="daemons"))
    supervisor = start_fresh(attempt)
    those = begun(attempt)
    for one in those:
        processes.send(one, signal.SIGKILL)
    wait_for(lambda: all(not Path(f"/proc/{one.pid}").exists() for one in those[1:]))
    processes.send(supervisor_of(attempt), signal.SIGKILL)
    supervisor.wait()
    attempts.bury(attempt, Workers())
