"""A cluster at its worst, for tests: a controller with jobs on nodes of its own, and a line to it that lies by a seed.

Its pilots are real processes on nodes that are this machine under other names. What happens to jobs (begun twice,
never, anew, ended with their node) is the controller's doing; what is said of it (late, twice, not, wrongly) is the
line's. Every fault is written down: `faults_of` counts them. While the file CALM exists, the line says and does what is
true.
"""

import contextlib
import ctypes
import itertools
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from ablate.core import disk, processes
from ablate.core.failures import Ending
from ablate.execution.pilots.cluster import JobStatus, Refused, Table, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob
from support.processes import is_alive

PR_SET_CHILD_SUBREAPER = 36
NODES = ("node-0", "node-1", "node-2", "node-3")
KEPT_S = 3.0
"""For a job that is over to be known still."""
OLD_S = 1.5
"""Between two copies of the table that an old answer is read from."""
WARNED_S = 0.5
"""From the signal that a job is to go to its end."""
TICK_S = 0.01
ANSWER_S = 10.0
"""For the controller to hear what is said to it."""
CALM, HELD, FAULTS, TABLE, OLD = "calm", "held", "faults.jsonl", "table.json", "old.json"
"""Files in the cluster's folder; while HELD exists, no job begins."""

SUBMIT_LIES = {"not sent": 4, "sent": 4, "sent late": 3, "lost": 2, "sent twice": 3, "slow": 2, "refused": 1}
TABLE_LIES = {
    "unreachable": 6,
    "empty": 3,
    "one is missing": 4,
    "old": 4,
    "a live one is over": 2,
    "an ended one runs": 3,
    "other restarts": 2,
    "slow": 3,
    "hopeless": 1,
}
CANCEL_LIES = {"not sent": 3, "sent": 3, "sent twice": 3, "sent late": 3}
HAPPENINGS = {
    "requeue": 4,
    "preempt": 4,
    "node": 3,
    "scancel": 1,
    "time limit": 3,
    "pilot": 5,
    "cut off": 2,
    "cut off and requeued": 2,
}
"""What may come over a running job; "pilot": its first process is killed, and the cluster ends the rest; "cut off": the
cluster has lost its node, and it goes on there all the same."""
LIE_ODDS = {"submit": 0.5, "table": 0.15, "cancel": 0.5}
"""Of a call of a line without calm: that it goes wrong."""
START_LIES = {"held": 2, "twice": 1, "none": 17}
"""What becomes of a job that was taken: it waits until the calm, begins in two places, or as it should."""


def note_fault(folder: Path, what: str) -> None:
    with (folder / FAULTS).open("a") as file:
        file.write(json.dumps({"at": time.time(), "pid": os.getpid(), "what": what}) + "\n")


def faults_of(folder: Path) -> Counter[str]:
    """-> how often each fault has happened."""
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / FAULTS).read_text().splitlines()
        return Counter(json.loads(line)["what"] for line in lines)
    return Counter()


def drawn(dice: random.Random, weights: Mapping[str, int]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]


# the line


class WorstCluster:
    """The line of one process to the cluster: a `Cluster`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._dice: random.Random | None = None
        self._counter = itertools.count()

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        paths = [str(job.path) for job in jobs]
        match self._lie("submit", SUBMIT_LIES):
            case "not sent":
                raise Unreachable("submit: no answer")
            case "refused":
                raise Refused("QOSMaxSubmitJobPerUserLimit")
            case "sent":
                self._send("submit", paths)
                raise Unreachable("submit: socket timed out on send/recv")
            case "sent late":
                self._send("submit", paths, late_s=self._dice.uniform(0.2, 3))
                raise Unreachable("submit: socket timed out on send/recv")
            case "lost":
                return
            case "sent twice":
                self._send("submit", paths)
            case "slow":
                time.sleep(self._dice.uniform(0.1, 1))
        self._send("submit", paths)

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        asked_at, lie = time.monotonic(), self._lie("table", TABLE_LIES)
        known = {token: JobStatus(**status) for token, status in self._read(OLD if lie == "old" else TABLE).items()}
        among = [token for job in jobs if (token := job.token) in known]
        match lie:
            case "unreachable":
                raise Unreachable("table: no answer")
            case "empty":
                known = {}
            case "slow":
                time.sleep(self._dice.uniform(0.1, 1))
            case "one is missing" if among:
                del known[self._dice.choice(among)]
            case "a live one is over":
                self._alter(known, among, "running", phase="over", why="COMPLETED")
            case "an ended one runs":
                self._alter(known, among, "over", phase="running", why="", ending=None)
            case "other restarts" if among:
                token = self._dice.choice(among)
                known[token] = known[token]._replace(num_restarts=self._dice.randrange(4))
            case "hopeless":
                self._alter(known, among, "queued", is_hopeless=True, why="PartitionConfig")
        return Table(asked_at, known)

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        tokens = [job.token for job in jobs]
        match self._lie("cancel", CANCEL_LIES):
            case "not sent":
                raise Unreachable("cancel: no answer")
            case "sent":
                self._send("cancel", tokens)
                raise Unreachable("cancel: no answer")
            case "sent twice":
                self._send("cancel", tokens)
            case "sent late":
                self._send("cancel", tokens, late_s=self._dice.uniform(0.2, 2))
                return
        self._send("cancel", tokens)

    def _lie(self, call: str, lies: Mapping[str, int]) -> str:
        if self._dice is None:  # each process has dice of its own, by the order in which they came
            self._dice = random.Random(f"{self._seed} {_next_number(self._folder)}")
        if (self._folder / CALM).exists() or self._dice.random() > LIE_ODDS[call]:
            return "none"
        lie = drawn(self._dice, lies)
        note_fault(self._folder, f"{call}: {lie}")
        return lie

    def _alter(self, known: dict[str, JobStatus], among: Sequence[str], such_phase: str, **changed: Any) -> None:
        if such := [token for token in among if known[token].phase == such_phase]:
            token = self._dice.choice(such)
            known[token] = known[token]._replace(**changed)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads((self._folder / name).read_text())
        except FileNotFoundError:
            raise Unreachable("there is no cluster") from None
        for status in record.values():
            status["ending"] = status["ending"] and Ending(*status["ending"])
        return record

    def _send(self, verb: str, names: list[str], late_s: float = 0.0) -> None:
        """Returns once it was heard, and done where it is not late."""
        path = self._folder / "inbox" / f"{time.time_ns()}-{os.getpid()}-{next(self._counter)}.json"
        disk.write_volatile(path, json.dumps({"verb": verb, "names": names, "late_s": late_s}))
        until = time.monotonic() + ANSWER_S
        while path.exists():
            if time.monotonic() > until:
                raise Unreachable(f"{verb}: the controller does not listen")
            time.sleep(TICK_S / 2)


def _next_number(folder: Path) -> int:
    for number in itertools.count():
        if disk.create(folder / "lines" / str(number), ""):
            return number
    raise AssertionError


# the controller


@dataclass
class Job:
    """One entry of the controller's; two may have one token."""

    id: str
    path: Path
    start_at: float
    phase: str = "queued"
    node: str = ""
    num_restarts: int = 0
    why: str = "Priority"
    ending: Ending | None = None
    keeper: int | None = None
    """The process that holds all of the job's."""
    over_at: float | None = None
    cause: str | None = None
    """What came over it, so that its end is known."""
    kill_at: float = field(default=float("inf"))

    @property
    def token(self) -> str:
        return PilotJob(self.path).token

    def record(self) -> dict[str, Any]:
        status = JobStatus(self.phase, self.id, self.node, self.num_restarts, self.why, ending=self.ending)
        return status._asdict()


ENDINGS = {
    "node": Ending("lost", "its node failed"),
    "cut off": Ending("lost", "its node does not answer"),
    "scancel": Ending("cancelled", "cancelled by the user"),
    "time limit": Ending("preempted", "its time was over"),
}
AGAIN = ("requeue", "preempt", "cut off and requeued")
CUT_OFF = "cut_off"
"""A file with the number of jobs that go on without the cluster's knowing."""


class Controller:
    """Takes, begins, ends and lists jobs."""

    def __init__(self, folder: Path, seed: int, run_pilot: Callable[[Path, str, int], NoReturn]) -> None:
        self._folder, self._dice, self._run_pilot = folder, random.Random(f"{seed} controller"), run_pilot
        self._jobs: list[Job] = []
        self._late: list[tuple[float, dict[str, Any]]] = []
        self._cut_off: list[int] = []
        """Keepers of jobs that are on nodes that are lost, and go on."""
        self._listed = ("", "")
        self._old_at = 0.0

    def tick(self) -> None:
        now = time.monotonic()
        self._cut_off = [keeper for keeper in self._cut_off if os.waitpid(keeper, os.WNOHANG)[0] == 0]
        heard = sorted((self._folder / "inbox").glob("[0-9]*.json"))
        for path in heard:
            message = json.loads(path.read_text())
            if message.get("late_s"):
                self._late.append((now + message["late_s"], message))
            else:
                self._obey(message)
        due = [message for at, message in self._late if at <= now]
        self._late = [(at, message) for at, message in self._late if at > now]
        for message in due:
            self._obey(message)
        self._look_after(now)
        self._list(now)
        for path in heard:
            path.unlink()

    @property
    def is_calm(self) -> bool:
        return (self._folder / CALM).exists()

    def _obey(self, message: dict[str, Any]) -> None:
        match message["verb"]:
            case "submit":
                for path in map(Path, message["names"]):
                    self._take(path)
            case "cancel":
                for job in self._jobs:
                    if job.token in message["names"] and job.phase != "over":
                        job.cause = job.cause or "cancel"
                        self._end(job)
            case "happen":
                self._happen(message["names"][0])

    def _take(self, path: Path) -> None:
        start = "none" if self.is_calm else drawn(self._dice, START_LIES)
        if start != "none":
            note_fault(self._folder, f"start: {start}")
        for _ in range(2 if start == "twice" else 1):
            delay_s = float("inf") if start == "held" else self._dice.expovariate(1 / 0.1)
            self._jobs.append(Job(str(len(self._jobs) + 1), path, time.monotonic() + delay_s))

    def _happen(self, what: str) -> None:
        running = [job for job in self._jobs if job.phase == "running" and not job.cause]
        if not running:
            return
        chosen = self._dice.choice(running)
        note_fault(self._folder, f"happens: {what}")
        hit = [job for job in running if job.node == chosen.node] if what == "node" else [chosen]
        for job in hit:
            job.cause = what
            if what in ("preempt", "time limit"):
                self._warn(job)
            elif what == "pilot":
                self._signal_pilot(job, signal.SIGKILL)
            elif what.startswith("cut off"):
                self._cut_off.append(job.keeper)
                self._close(job)
            else:
                self._end(job)

    def _warn(self, job: Job) -> None:
        self._signal_pilot(job, signal.SIGUSR2 if job.cause == "time limit" else signal.SIGTERM)
        job.kill_at = time.monotonic() + WARNED_S

    def _signal_pilot(self, job: Job, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            for child in psutil.Process(job.keeper).children():
                os.kill(child.pid, number)
                return  # the first one: the pilot

    def _look_after(self, now: float) -> None:
        for job in self._jobs:
            if job.phase == "queued" and self._is_due(job, now):
                self._begin(job)
            elif job.phase == "running" and now > job.kill_at:
                self._end(job)
            elif job.phase == "running" and self._has_ended(job):
                self._close(job)

    def _is_due(self, job: Job, now: float) -> bool:
        if (self._folder / HELD).exists():
            return False
        return now >= job.start_at or (job.start_at == float("inf") and self.is_calm)

    def _begin(self, job: Job) -> None:
        job.node, job.phase, job.why = self._dice.choice(NODES), "running", ""
        job.keeper = keep(job, self._folder, self._run_pilot)

    def _has_ended(self, job: Job) -> bool:
        pid, _ = os.waitpid(job.keeper, os.WNOHANG)
        return pid != 0

    def _end(self, job: Job) -> None:
        if job.keeper is not None:
            kill_tree(job.keeper)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(job.keeper, 0)
        self._close(job)

    def _close(self, job: Job) -> None:
        cause, job.cause, job.kill_at, job.keeper = job.cause, None, float("inf"), None
        if cause in AGAIN:
            job.phase, job.why, job.num_restarts = "queued", "BeginTime", job.num_restarts + 1
            job.start_at = time.monotonic() + self._dice.expovariate(1 / 0.3)
            return
        job.phase, job.over_at = "over", time.monotonic()
        job.ending, job.why = ENDINGS.get(cause or ""), cause or "COMPLETED"

    def _list(self, now: float) -> None:
        self._jobs = [job for job in self._jobs if job.over_at is None or now - job.over_at < KEPT_S]
        order = {"over": 0, "queued": 1, "running": 2}  # of two with one token the liveliest is told
        table = {job.token: job.record() for job in sorted(self._jobs, key=lambda job: order[job.phase])}
        text, num_cut_off = json.dumps(table), str(len(self._cut_off))
        if (text, num_cut_off) != self._listed:
            disk.write_volatile(self._folder / TABLE, text)
            disk.write_volatile(self._folder / CUT_OFF, num_cut_off)
            self._listed = text, num_cut_off
        if now - self._old_at > OLD_S:
            disk.write_volatile(self._folder / OLD, text)
            self._old_at = now

    def end(self) -> None:
        for keeper in self._cut_off:
            kill_tree(keeper)
        for job in self._jobs:
            if job.phase == "running":
                self._end(job)


def keep(job: Job, folder: Path, run_pilot: Callable[[Path, str, int], NoReturn]) -> int:
    """-> pid of a process that has started the job's pilot, adopts all that comes of it and ends it with the pilot."""
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    processes.die_with_parent(parent)
    pilot = os.fork()
    if pilot == 0:
        _be_pilot(job, folder, run_pilot)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0)[0] != pilot:
            pass
    kill_tree(os.getpid(), is_root_too=False)
    os._exit(0)


def _be_pilot(job: Job, folder: Path, run_pilot: Callable[[Path, str, int], NoReturn]) -> NoReturn:
    try:
        os.setsid()
        log = os.open(folder / "logs" / f"{job.id}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        socket.gethostname = lambda: job.node  # nobody here can ask or signal what signs with another host's name
        run_pilot(job.path, job.id, job.num_restarts)
    except SystemExit:
        pass
    except BaseException:  # the last frame of a forked process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)


def kill_tree(root: int, *, is_root_too: bool = True) -> None:
    """Ends a process that adopts orphans, last, and whatever has come of it."""
    for _ in range(500):
        try:
            below = psutil.Process(root).children(recursive=True)
        except psutil.Error:
            return
        living = [one for one in below if is_alive(one)]
        for one in living:
            with contextlib.suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)
        if not living:
            break
        time.sleep(0.005)
    if is_root_too:
        with contextlib.suppress(OSError):
            os.kill(root, signal.SIGKILL)


def start_worst(folder: Path, seed: int, run_pilot: Callable[[Path, str, int], NoReturn]) -> int:
    """-> pid of the controller, forked; it ends with all its jobs at SIGTERM, or when this process does."""
    for name in ("inbox", "lines", "logs"):
        (folder / name).mkdir(parents=True)
    disk.write_volatile(folder / TABLE, "{}")
    disk.write_volatile(folder / OLD, "{}")
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    try:
        processes.die_with_parent(parent)
        os.setsid()
        signals: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
        controller = Controller(folder, seed, run_pilot)
        while not signals:
            controller.tick()
            time.sleep(TICK_S)
        controller.end()
    except BaseException:  # the last frame of a forked process
        with (folder / "controller.txt").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(0)


def jobs_left(folder: Path) -> list[str]:
    """-> the jobs that wait or run, in the controller's own words."""
    table = json.loads((folder / TABLE).read_text())
    left = [f"{token} ({job['id']}) is {job['phase']}" for token, job in table.items() if job["phase"] != "over"]
    num = int((folder / CUT_OFF).read_text())
    return [*left, f"{num} jobs on lost nodes go on"] if num else left


def happen(folder: Path, what: str) -> None:
    """Has something of HAPPENINGS come over a job that runs, if one does."""
    message = json.dumps({"verb": "happen", "names": [what]})
    disk.write_volatile(folder / "inbox" / f"{time.time_ns()}-{os.getpid()}-happen.json", message)
