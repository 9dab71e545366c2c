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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from ablate.core import disk, processes
from ablate.core.values import Frozen
from ablate.execution.executors.base import environment, offline, python
from ablate.execution.pilots import cluster
from ablate.execution.pilots.cluster import JobStatus, Phase, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob

LISTED_S = 1.5
"""From sending to being listed in every table that is asked for, or it was never sent."""
KEPT_S = 1.0
"""For a job that is over to be in the table still; then the cluster knows nothing of it any more."""
DELIVERY_S = 0.1
"""From sending to arriving; a cancellation arrives again after as much."""
TABLE_S = 0.2
"""Between two tables."""
NUM_NODES = 3
TICK_S = 0.01
DOWN, HELD = "down", "held"
"""Files in the cluster's folder. While they exist it cannot be reached; no queued job starts."""
NODE, JOB = "ABLATE_EXAMPLE_NODE", "ABLATE_EXAMPLE_JOB"
"""Variables in the environment of all that a job starts: where it is, and whose it is."""
ON_NODE = f'import os, socket\nnode = os.environ.get("{NODE}")\nif node:\n    socket.gethostname = lambda: node\n'
"""sitecustomize.py: a process as on another machine, so that nobody here can ask or signal it by what it writes."""


class Job(Frozen):
    """A line of the table."""

    number: int
    name: str
    """As whoever sent it chose."""
    folder: str
    """Of its pilot."""
    node: str
    phase: Phase = "queued"
    num_restarts: int = 0


class Listing(Frozen):
    """The jobs that the cluster knows, as they were when it was written."""

    jobs: tuple[Job, ...] = ()


class ExampleCluster:
    """The line to a cluster, as any process of any machine has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        """See `Cluster.submit`."""
        self._send("submit", jobs)

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        """See `Cluster.cancel`."""
        self._send("cancel", jobs)

    def requeue(self, jobs: Sequence[PilotJob]) -> None:
        """What an administrator does: running jobs are ended, and begun anew."""
        self._send("requeue", jobs)

    def table(self, jobs: Sequence[PilotJob]) -> cluster.Table:
        """See `Cluster.table`."""
        asked_at = time.monotonic() - LISTED_S
        self._require_reachable()
        try:
            listing = Listing.model_validate_json((self._folder / "table.json").read_bytes())
        except FileNotFoundError as error:
            raise Unreachable("it has not listed its jobs yet") from error
        by_age = sorted(listing.jobs, key=lambda job: (job.phase != "over", job.number))  # of one name sent twice
        return cluster.Table(asked_at, {job.name: _status(job) for job in by_age})

    def _send(self, verb: Literal["submit", "cancel", "requeue"], jobs: Sequence[PilotJob]) -> None:
        self._require_reachable()
        message = {"verb": verb, "jobs": [(job.token, str(job.path.resolve())) for job in jobs]}
        disk.write_volatile(self._folder / "inbox" / f"{time.time_ns()}-{os.getpid()}.json", json.dumps(message))

    def _require_reachable(self) -> None:
        if (self._folder / DOWN).exists():
            raise Unreachable("it is down")


def _status(job: Job) -> JobStatus:
    why = "all nodes are busy" if job.phase == "queued" else ""
    return JobStatus(job.phase, str(job.number), job.node, job.num_restarts, why)


# the other side


def start_cluster(folder: Path) -> "subprocess.Popen[bytes]":
    """-> its controller, whose jobs end when it is terminated; it takes jobs from the start, and soon answers."""
    (folder / "inbox").mkdir(parents=True)
    (folder / "on_node").mkdir()
    (folder / "on_node" / "sitecustomize.py").write_text(ON_NODE)
    return subprocess.Popen(python("ablate.execution.remote_example.cluster", str(folder), str(os.getpid())))


@dataclass
class _Running:
    job: Job
    process: "subprocess.Popen[bytes] | None" = None
    """None while it is queued."""
    over_at: float | None = None


class _Controller:
    """Receives, starts, ends and lists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed_at = 0.0
        self._arriving: list[tuple[float, dict[str, Any]]] = []
        """When each message arrives."""
        self._jobs: list[_Running] = []

    def tick(self) -> None:
        now = time.monotonic()
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
            disk.write_volatile(self._folder / "table.json", Listing(jobs=tuple(known)).model_dump_json())

    def end(self) -> None:
        for one in self._jobs:
            self._cancel(one)

    def _receive(self, message: Any, now: float) -> None:
        num_times = 2 if message["verb"] == "cancel" else 1
        self._arriving += ((now + DELIVERY_S * (number + 1), message) for number in range(num_times))

    def _obey(self, message: dict[str, Any]) -> None:
        for name, folder in message["jobs"]:
            if message["verb"] == "submit":
                number = len(self._jobs) + 1
                job = Job(number=number, name=name, folder=folder, node=f"node-{number % NUM_NODES}")
                self._jobs.append(_Running(job))
                continue
            for one in self._jobs:
                if one.job.name == name:
                    self._cancel(one)
                    if message["verb"] == "requeue":
                        self._begin_anew(one)

    def _look_after(self, one: _Running) -> None:
        if one.job.phase == "queued" and not (self._folder / HELD).exists():
            self._start(one)
        elif one.job.phase == "running" and one.process and one.process.poll() is not None:
            self._cancel(one)

    def _start(self, one: _Running) -> None:
        log = Path(one.job.folder) / "log.txt"
        with disk.opened_to_append(log) as file:
            one.process = subprocess.Popen(
                python("ablate.execution.pilots.pilot", one.job.folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment(one.job),
                start_new_session=True,
            )
        one.job = one.job.model_copy(update={"phase": "running"})

    def _environment(self, job: Job) -> dict[str, str]:
        slot = {"device": "cpu", "gpu": None, "threads": 1}
        settings = offline(environment({"slot": slot, "is_online": False}))
        path = os.pathsep.join([str(self._folder.resolve() / "on_node"), settings["PYTHONPATH"]])
        of_job = {NODE: job.node, JOB: self._mark(job), "ABLATE_RESTART_COUNT": str(job.num_restarts)}
        return settings | of_job | {"PYTHONPATH": path, "ABLATE_JOB_ID": str(job.number)}

    def _mark(self, job: Job) -> str:
        return f"{self._folder.resolve()}:{job.number}"

    def _cancel(self, one: _Running) -> None:
        """Ends a job with all that it started, as a node does by its control group."""
        if one.job.phase == "over":
            return
        if one.process:
            _kill_marked(f"{JOB}={self._mark(one.job)}".encode())
            one.process.wait()
        one.job, one.over_at = one.job.model_copy(update={"phase": "over"}), time.monotonic()

    def _begin_anew(self, one: _Running) -> None:
        changes = {"phase": "queued", "num_restarts": one.job.num_restarts + 1}
        one.job, one.over_at, one.process = one.job.model_copy(update=changes), None, None


def _kill_marked(mark: bytes) -> None:
    """Ends whoever has a mark in its environment, until nobody is left."""
    while marked := [one for pid in psutil.pids() if _has(pid, mark) and (one := processes.identity(pid))]:
        for one in marked:
            processes.send(one, signal.SIGKILL)
        time.sleep(TICK_S)


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


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
