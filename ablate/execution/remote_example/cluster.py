"""A cluster that is none: a controller process with jobs, a table and a clock of its own, and the line to it.

It does what real ones do now and then, and does it always: what is sent arrives after a while, a cancellation arrives
twice, the table is an old one most of the time, jobs that are over are soon forgotten, and workers are known by nodes
and numbers that mean nothing here.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.core import disk, processes
from ablate.core.processes import Identity
from ablate.core.values import Frozen
from ablate.execution.executors.base import environment, python
from ablate.store.attempt import Attempt

LISTED_S = 1.5
"""By the cluster's clock, from the last table before the sending: a later one lists it, or it was never sent."""
KEPT_S = 1.0
"""For a job that is over to be in the table still; then the cluster knows nothing of it any more."""
DELIVERY_S = 0.1
"""From sending to arriving; a cancellation arrives again after as much."""
TABLE_S = 0.2
"""Between two tables."""
EPOCH_S = 1e6
"""What the cluster's clock showed when it began."""
NUM_NODES = 3
TICK_S = 0.01
DOWN, HELD = "down", "held"
"""Files in the cluster's folder. While they exist it cannot be reached; no queued job starts."""

ON_NODE = (
    "import socket, sys; socket.gethostname = lambda: sys.argv[1];"
    " from ablate.execution import supervisor; supervisor.main(sys.argv[2:])"
)
"""A worker as on another machine: nobody here can ask or signal it by what it writes of itself."""


class Unreachable(Exception):
    """The cluster does not answer."""


class Job(Frozen):
    """A line of the table."""

    number: int
    name: str
    """As whoever sent it chose."""
    node: str
    is_over: bool = False


class Table(Frozen):
    """The jobs that the cluster knows, as they were at one moment of its clock."""

    as_of: float
    jobs: tuple[Job, ...] = ()

    def jobs_named(self, name: str) -> list[Job]:
        return [job for job in self.jobs if job.name == name]


class Cluster:
    """The line to a cluster, as any process of any machine has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, name: str, attempt: Path) -> None:
        """Has a supervisor started on an attempt. Raises Unreachable, as all that is said or asked here does."""
        self._send({"verb": "submit", "name": name, "attempt": str(attempt)})

    def cancel(self, name: str) -> None:
        """Ends the jobs of that name with all that they started."""
        self._send({"verb": "cancel", "name": name})

    def table(self) -> Table:
        self._require_reachable()
        return Table.model_validate_json((self._folder / "table.json").read_bytes())

    def _send(self, message: dict[str, str]) -> None:
        self._require_reachable()
        disk.write_volatile(self._folder / "inbox" / f"{time.time_ns()}-{os.getpid()}.json", json.dumps(message))

    def _require_reachable(self) -> None:
        if (self._folder / DOWN).exists():
            raise Unreachable


# the other side


def start_cluster(folder: Path) -> "subprocess.Popen[bytes]":
    """-> its controller, whose jobs end when it is terminated; answers from the start."""
    (folder / "inbox").mkdir(parents=True)
    disk.write_volatile(folder / "table.json", Table(as_of=EPOCH_S).model_dump_json())
    return subprocess.Popen(python("ablate.execution.remote_example.cluster", str(folder), str(os.getpid())))


@dataclass
class _Running:
    job: Job
    attempt: Attempt
    process: "subprocess.Popen[bytes] | None" = None
    """None while it is queued."""
    leader: Identity | None = None
    over_at: float | None = None


class _Controller:
    """Receives, starts, ends and lists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_at = time.monotonic()
        self._listed_at = -TABLE_S
        self._arriving: list[tuple[float, dict[str, Any]]] = []
        """When each message arrives."""
        self._jobs: list[_Running] = []

    def tick(self) -> None:
        now = self._now()
        for path in sorted((self._folder / "inbox").glob("[0-9]*.json")):
            self._receive(disk.read_json(path), now)
            path.unlink()
        arrived = [message for due, message in self._arriving if due <= now]
        self._arriving = [(due, message) for due, message in self._arriving if due > now]
        for message in arrived:
            self._obey(message)
        for one in self._jobs:
            self._look_after(one)
        if now - self._listed_at >= TABLE_S:
            self._listed_at = now
            known = [one.job for one in self._jobs if one.over_at is None or now - one.over_at <= KEPT_S]
            table = Table(as_of=EPOCH_S + now, jobs=tuple(known))
            disk.write_volatile(self._folder / "table.json", table.model_dump_json())

    def _now(self) -> float:
        return time.monotonic() - self._began_at

    def end(self) -> None:
        for one in self._jobs:
            self._cancel(one)

    def _receive(self, message: Any, now: float) -> None:
        num_times = 2 if message["verb"] == "cancel" else 1
        self._arriving += ((now + DELIVERY_S * (number + 1), message) for number in range(num_times))

    def _obey(self, message: dict[str, Any]) -> None:
        if message["verb"] == "submit":
            number = len(self._jobs) + 1
            job = Job(number=number, name=message["name"], node=f"node-{number % NUM_NODES}")
            self._jobs.append(_Running(job, Attempt(Path(message["attempt"]))))
        else:
            for one in self._jobs:
                if one.job.name == message["name"]:
                    self._cancel(one)

    def _look_after(self, one: _Running) -> None:
        if one.job.is_over:
            return
        if one.process is None:
            if not (self._folder / HELD).exists():
                self._start(one)
        elif one.process.poll() is not None:
            if one.leader:
                processes.kill_orphans(one.leader, one.attempt.path)
            self._close(one)

    def _start(self, one: _Running) -> None:
        with disk.opened_to_append(one.attempt.log) as log:
            one.process = subprocess.Popen(
                [sys.executable, "-P", "-c", ON_NODE, one.job.node, str(one.attempt.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(one.attempt.request or {}),
                cwd=one.attempt.path,
                start_new_session=True,
            )
        one.leader = processes.identity(one.process.pid)

    def _cancel(self, one: _Running) -> None:
        if one.job.is_over:
            return
        if one.process:
            if one.leader:
                processes.kill_session(one.leader)
            one.process.kill()
            one.process.wait()
        self._close(one)

    def _close(self, one: _Running) -> None:
        one.job, one.over_at = one.job.model_copy(update={"is_over": True}), self._now()


def main(folder: Path, parent: int) -> None:
    """The controller's life: until it is terminated, or whoever started it is gone."""
    processes.die_with_parent(parent)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    controller = _Controller(folder)
    while not signals:
        controller.tick()
        time.sleep(TICK_S)
    controller.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
