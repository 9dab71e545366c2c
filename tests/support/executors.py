"""Executors for tests: one that has every result at once, one whose fork server is quick, and those of the contract.

As a command it is a driver of toys on one of them, which tests can kill; so is `status`, `stop` of another process.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from ablate.core import disk, processes
from ablate.execution import fork_server
from ablate.execution.driver import Summary, driving
from ablate.execution.executors.base import EXECUTORS, Executor
from ablate.execution.executors.launch import ForkServer
from ablate.execution.executors.local import Local
from ablate.execution.fleet import fleet_with
from ablate.execution.remote_example import executor as remote_example
from ablate.execution.remote_example.cluster import HELD, LISTED_S, start_cluster
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing, Slot, Taken
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store
from support.slurm import shared_slurm
from support.toys import chain, quiet, wait_for


class AtOnce:
    """Places no worker: what is submitted is done here and now, by a function."""

    name = "at_once"

    def __init__(self, slots: Sequence[Slot], do: Callable[[Attempt], None]) -> None:
        self._slots, self._do = slots, do

    def slots(self) -> Sequence[Slot]:
        return self._slots

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        return {}

    def begin(self, jobs: Path) -> None:
        pass

    def submit(self, attempt: Attempt) -> None:
        self._do(attempt)

    def poll(self, attempt: Attempt) -> str:
        return "gone"

    def end(self, attempt: Attempt) -> None:
        pass

    def ending(self, attempt: Attempt) -> None:
        return None

    def describe(self, attempt: Attempt) -> str:
        return "nobody"

    def look(self, num_waiting: int) -> Sequence[str]:
        return ()

    def close(self) -> None:
        pass


class Instant(AtOnce):
    """What is submitted is committed, without any work."""

    def __init__(self, slots: Sequence[Slot], seconds: float = 1.0) -> None:
        super().__init__(slots, self._commit)
        self._seconds = seconds
        self.others: list[Mapping[str, Taken]] = []
        """What others hold, look after look; the last goes on."""
        self.placed: dict[str, str] = {}
        """Key of a stage -> slot."""

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        if len(self.others) > 1:
            return self.others.pop(0)
        return self.others[0] if self.others else {}

    def _commit(self, attempt: Attempt) -> None:
        self.placed[attempt.request["key"]] = attempt.request["slot"]["name"]
        commit_at_once(attempt, self._seconds)


def commit_at_once(attempt: Attempt, seconds: float) -> None:
    """The result of an attempt and its last word, as if it had taken so long; quicker than a worker writes them."""
    request = attempt.request
    attempt.staging.mkdir()
    provenance = {"seconds": seconds, "attempts": 1}
    record = json.dumps({"payload": request["payload"], "provenance": provenance}).encode()
    files = {"stage.json": {"size": len(record), "sha256": hashlib.sha256(record).hexdigest()}}
    disk.write_volatile(attempt.staging / "stage.json", record)
    done = {"files": files, "content": None, "attempt": attempt.number}
    disk.write_volatile(attempt.staging / "done.json", json.dumps(done))
    folder = attempt.path.parents[2] / "stages" / f"{request['kind']}-{request['key'][:12]}"
    folder.parent.mkdir(exist_ok=True)
    attempt.staging.rename(folder)
    disk.write_volatile(attempt.path / "exit.json", json.dumps({"failure": "ok", "message": ""}))


class Forked:
    """A forked process, as far as `ForkServer` has to do with one."""

    def __init__(self, pid: int) -> None:
        self.pid, self._code = pid, None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        wait_for(lambda: self.poll() is not None)


class QuickForkServer(ForkServer):
    """A fork server without its imports, which toys do not need: it is there at once."""

    def __init__(self) -> None:
        self.line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.setblocking(False)
        driver, pid = os.getpid(), os.fork()
        if pid == 0:
            _serve(self.line, far, driver)
        far.close()
        self._process = Forked(pid)
        self._started_at, self._is_ready, self._asked, self._forked = time.monotonic(), True, {}, {}


def _serve(near: socket.socket, line: socket.socket, driver: int) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    processes.die_with_parent(driver)
    os.setsid()
    near.close()
    while fork_server._answer(line):
        pass
    os._exit(0)


class QuickLocal(Local):
    """This machine, its workers forked."""

    def __init__(self, placing: Placing) -> None:
        super().__init__(placing)
        self._is_warm = True

    def submit(self, attempt: Attempt) -> None:
        self._fork_server = self._fork_server or QuickForkServer()
        super().submit(attempt)


# what the contract is about


@dataclass(frozen=True)
class Service:
    """What the workers of one test run on, beside this machine: a cluster."""

    variables: Mapping[str, str]
    """Environment of every process of the test, which finds the cluster by it."""
    who: str
    """How what is said of its first worker begins."""
    late_s: float
    """An answer may be as old as that."""
    hold: Callable[[], object]
    """From now on queued jobs wait."""
    release: Callable[[], object]


@contextlib.contextmanager
def example_service(folder: Path) -> Iterator[Service]:
    """The cluster of the remote example, for one test."""
    controller = start_cluster(folder)
    held = folder / HELD
    try:
        variables = {"ABLATE_EXAMPLE_CLUSTER": str(folder)}
        wait_for((folder / "table.json").exists)
        yield Service(variables, "job 1 on node-1", LISTED_S, held.touch, held.unlink)
    finally:
        controller.terminate()
        controller.wait(10)


@contextlib.contextmanager
def slurm_service(_: Path) -> Iterator[Service]:
    """The real Slurm of this process."""
    slurm = shared_slurm()
    try:
        yield Service(
            slurm.variables, "job ", 0.0, partial(slurm.set_partition, "DOWN"), partial(slurm.set_partition, "UP")
        )
    finally:
        slurm.clear()


QUICK: Mapping[str, object] = {
    "max_jobs": 2,
    "look_s": 0.2,
    "idle_s": 2.0,
    "margin_s": 0.0,
    "missing_s": 1.0,
    "submissions_per_minute": 600,
    "device": "cpu",
    "network": True,
    "fork_server": False,
}
"""Options of pilot jobs for tests, which wait for them."""


@contextlib.contextmanager
def ray_service(_: Path) -> Iterator[Service]:
    """A real Ray, which the fixture `ray_head` has started."""
    from support import ray_cluster  # it is built on this module

    with ray_cluster.ray_service() as service:
        yield service


class Quickly:
    """A maker of executors with options for tests, where their profile says nothing else."""

    def __init__(self, maker: Callable[[Placing], Executor]) -> None:
        self.options, self._make = maker.options, maker

    def __call__(self, placing: Placing) -> Executor:
        return self._make(replace(placing, options=QUICK | dict(placing.options)))


EXECUTORS.register(remote_example.NAME)(Quickly(remote_example.RemoteExample))


@dataclass(frozen=True)
class Subject:
    """An executor that has to keep the contract."""

    make: Callable[[Placing], Executor]
    service: Callable[[Path], contextlib.AbstractContextManager[Service]] | None = None
    """Starts what it runs on for one test, in a folder that is not there yet; None: it needs nothing."""
    wants: tuple[str, ...] = ()
    """Fixtures: what several of its tests run on."""


SUBJECTS: dict[str, Subject] = {
    **{name: Subject(EXECUTORS[name]) for name in EXECUTORS if name != "srun"},  # Slurm's again
    "local, forked": Subject(QuickLocal),
    remote_example.NAME: Subject(EXECUTORS[remote_example.NAME], example_service),
    "slurm": Subject(Quickly(EXECUTORS["slurm"]), slurm_service),
    "ray": Subject(Quickly(EXECUTORS["ray"]), ray_service, ("ray_head",)),
}
"""By name; that of one on a cluster is its executor's."""


def executor_on(subject: str) -> Executor:
    return SUBJECTS[subject].make(Placing(num_jobs=2, uses_fork_server=False))


def drive_on(
    subject: str, root: Path, stages: Sequence[Stage], write: Callable[[str], None] = lambda _: None, **options: object
) -> Summary:
    """Runs the stages on an executor, as the study "toys"."""
    with driving(Store(root), "toys", fleet_with(executor_on(subject)), quiet(write), Options(**options)) as driver:
        return driver.run(stages, lambda stage: stage.settings.steps)


if __name__ == "__main__":
    subject, folder, length, step_s, steps = sys.argv[1:]
    stages = chain(int(length), steps=int(steps), step_s=float(step_s))
    sys.exit(drive_on(subject, Path(folder), stages, lambda line: print(line, flush=True)).exit_code)
