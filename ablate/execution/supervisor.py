"""The outer process of an attempt: no torch, its own session; it keeps log, heartbeat, time-outs and the last word."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from ablate.core import descendants, disk, plain_files, processes, shared_folders
from ablate.core.capped_log import CappedLog
from ablate.core.failures import Ending, ending_of
from ablate.core.processes import Identity
from ablate.execution.deaths import death_of
from ablate.execution.executors.base import supervisor_of
from ablate.execution.worker_process import WorkerProcess
from ablate.machine import address_space, process_count
from ablate.machine.gpu_leases import CardLeases
from ablate.store.attempt import Attempt

BEAT_S = 1.0
TICK_S = 0.2
STACKS_S = 2.0
"""For a hung worker to write its stacks into the log."""
UNMOUNTED_S = 600.0
"""For a disk to come back."""
TIED = "ABLATE_PILOT"
"""The variable of the environment that says which pilot of a cluster's job a supervisor ends with, which is started by
it or by its fork server: nothing that a cluster believes over may go on."""
STUCK_S = 60.0
"""For a killed worker to be gone; one that hangs in a driver's call is not."""


def main(arguments: list[str]) -> NoReturn:
    """Works on the attempt whose folder is given, in a new session."""
    attempt = Attempt(Path(arguments[0]).absolute())  # not resolved: runs/ may be a link to a folder of another name
    os.chdir(attempt.path)
    os._exit(0 if work_on(attempt).failure in ("ok", "diverged") else 1)  # after the last word, at once


def work_on(attempt: Attempt) -> Ending:
    """Sees one attempt through, as its only supervisor; must be called in a session leader of its own."""
    if pilot := os.environ.get(TIED):
        processes.die_with_parent(os.getppid())
        if processes.contact(Identity.model_validate_json(pilot)) == "gone":  # before it was tied to anybody
            os._exit(1)
    me = processes.identity()
    if me is None or not disk.create(attempt.worker, me.model_dump_json()) or attempt.exit is not None:
        return Ending("cancelled", "another supervisor was first, or a driver has given this attempt up")
    descendants.take_mark(descendants.mark_of(attempt.path))
    descendants.adopt_orphans()
    shared_folders.awaited(lambda: plain_files.what_is(attempt.path / "attempt.json"), attempt.path)
    return Supervisor(attempt, attempt.request).run()


class Supervisor:
    """One worker, watched from its start to its end."""

    def __init__(self, attempt: Attempt, request: Any) -> None:
        self.attempt, self.request = attempt, request
        self.log = CappedLog(attempt.log)
        self.started_at = time.monotonic()
        self.beats = 0
        self.counted_at = self.started_at
        """When its processes were last counted."""
        self.signals: list[int] = []
        self.stop_at: float | None = None
        """When the worker is killed, once it was asked to stop."""
        self.killed_at: float | None = None
        self.num_oom_kills = processes.num_oom_kills()
        self.cause: Ending | None = None
        """Why the supervisor itself ended the worker."""
        self.last_sign: tuple[float, Any] = (self.started_at, None)
        """When the worker last showed that it is getting on, and how that looked."""
        self.me = processes.identity()
        self.inode, self.device = attempt.path.stat().st_ino, _device(attempt)
        self.missed_at: float | None = None
        """When its folder was first not there."""

    def run(self) -> Ending:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, lambda caught, _: self.signals.append(caught))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with self._card():
                ending = self._watch() if self.cause is None else self.cause
        except (OSError, MemoryError) as error:
            failed = ending_of(error)._replace(message=f"the supervisor failed: {str(error) or type(error).__name__}")
            ending = address_space.explained(failed, error)
        with contextlib.suppress(OSError):  # a driver sees that we are gone, and why nothing can be written
            if self._has_folder():
                self._write_last_word(ending)
        return ending

    def _write_last_word(self, ending: Ending) -> None:
        self.attempt.write_exit(
            failure=ending.failure,
            message=ending.message,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.started_at, 3),
        )

    # the card

    @contextlib.contextmanager
    def _card(self) -> Iterator[None]:
        """Holds its shares of the card, or of each of several, all or none at a time."""
        slot = self.request["slot"]
        gpus = slot.get("gpus") or list(filter(None, [slot["gpu"]]))
        leases = CardLeases(gpus, slot["shares"], slot["num_shares"])
        for problem in dict.fromkeys(leases.problems):
            self.log.write(f"[ablate] {problem}\n".encode())
        with contextlib.closing(leases):
            if gpus:
                self._wait_for(leases)
            yield

    def _wait_for(self, leases: CardLeases) -> None:
        logged: set[str] = set()
        while not self._is_asked_to_stop():
            gpu = leases.missing()
            if gpu is None:
                return
            if gpu not in logged:
                self.log.write(f"[ablate] waits for card {gpu}: another run of ablate holds it\n".encode())
                logged.add(gpu)
            self._beat()
            time.sleep(TICK_S)
        self.cause = Ending("cancelled", "stopped while it waited for its card")

    # the worker

    def _watch(self) -> Ending:
        self.worker = WorkerProcess(self.attempt, self.request)
        try:
            while not self.worker.has_ended:
                if self.killed_at and time.monotonic() > self.killed_at + STUCK_S:
                    return self._stuck()
                self._beat()
                descendants.reap(but=self.worker.pid)
                self._drain()
                self._mind_folder()
                self._mind_stop()
                self._mind_stall()
                self._mind_crowd()
            self._kill()  # what the worker left running; its pid, not yet waited for, is still its own
            status = self.worker.wait()
            self._clear_away()
            while self._read():
                pass
            with contextlib.suppress(OSError):
                self.log.flush()
            return self._ending(status, self.worker.verdict())
        finally:
            self.worker.close()

    def _beat(self) -> None:
        beats = int((time.monotonic() - self.started_at) / BEAT_S) + 1
        if beats > self.beats:
            self.beats = beats
            with contextlib.suppress(OSError):  # a full disk must not end a training
                disk.write_volatile(self.attempt.heartbeat, f"{beats}\n")
            shared_folders.look_afresh(self.attempt.path)  # for a request to stop

    def _clear_away(self) -> None:
        """Ends what the worker has started to outlive it; it is ours now."""
        if not descendants.kill_all():
            self.log.write(b"[ablate] what the stage had started has not ended though it was killed\n")

    def _drain(self) -> None:
        if self.worker.has_output(TICK_S) and not self._read():
            time.sleep(TICK_S / 10)  # the worker has closed its output: it is about to end, or lives on without one

    def _read(self) -> bool:
        """-> whether there was something."""
        data = self.worker.read()
        with contextlib.suppress(OSError):
            self.log.write(data)
        return bool(data)

    def _mind_folder(self) -> None:
        """Of an attempt whose folder was removed nothing may be written: another may soon have its name."""
        try:
            is_ours = self._has_folder()
        except OSError:
            return
        if is_ours:
            self.missed_at = None
            return
        self.missed_at = self.missed_at or time.monotonic()
        if time.monotonic() - self.missed_at >= self._patience_s():
            self.cause = Ending("killed", f"{self.attempt.path} was removed while it ran")
            self._kill()

    def _has_folder(self) -> bool:
        """Whether it is there, and ours: some file systems number a folder anew while it is the same."""
        try:
            inode = self.attempt.path.stat().st_ino
        except FileNotFoundError:
            return False
        if inode != self.inode and supervisor_of(self.attempt) == self.me:
            self.inode = inode
        return inode == self.inode

    def _patience_s(self) -> float:
        """A disk that is not mounted for a while takes the root away, and brings it back."""
        return 0.0 if _device(self.attempt) == self.device else UNMOUNTED_S

    def _is_asked_to_stop(self) -> bool:
        return bool(self.signals) or self.attempt.stop_request.exists()

    def _mind_stop(self) -> None:
        if not self._is_asked_to_stop():
            return
        now = time.monotonic()
        if self.stop_at is None:
            self.stop_at = now + self.request["grace_s"]
        if now > self.stop_at or _is_urgent(self.attempt):
            self.cause = Ending("cancelled" if self.attempt.stop_request.exists() else "preempted", "killed on request")
            self._kill()
            return
        # again and again: one that came before the worker listened was lost
        self.worker.send(signal.SIGTERM)

    def _mind_stall(self) -> None:
        now, signs = time.monotonic(), self._signs_of_life()
        if signs != self.last_sign[1]:
            self.last_sign = now, signs
        if self.request["stall_s"] is None or now - self.last_sign[0] < self.request["stall_s"] or self.cause:
            return
        self.cause = Ending("stalled", f"no step, no line in {self.request['stall_s']:g} s; its stacks are in the log")
        self.worker.send(signal.SIGUSR1)
        until = now + STACKS_S
        while time.monotonic() < until and not self.worker.has_ended:
            self._drain()
        self._kill()

    def _mind_crowd(self) -> None:
        """Once a second: a stage that forks for ever is ended before the machine is full."""
        now = time.monotonic()
        if now - self.counted_at < BEAT_S or self.cause:
            return
        self.counted_at = now
        if (num := process_count.num_descendants(os.getpid())) > process_count.MOST:
            why = f"{num} processes or more at once, and {process_count.MOST} are the most that a stage may run"
            self.cause = Ending("crowded", why)
            self._kill()

    def _signs_of_life(self) -> Any:
        paths = self.attempt.progress, self.attempt.metrics, self.attempt.checkpoints
        return self.log.num_bytes, *map(_stamp, paths)

    def _stuck(self) -> Ending:
        """The card on which it hangs is not one to go on with."""
        descendants.kill_all(but=self.worker.pid)
        is_card = self.request["slot"]["gpu"] or self.request["slot"]["device"] == "cuda"
        failure = "gpu_fault" if is_card and not self._is_asked_to_stop() else "stalled"
        why = self.cause.message if self.cause else "it left something running"
        return Ending(failure, f"pid {self.worker.pid} has not ended {STUCK_S:g} s after it was killed ({why})")

    def _kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        self.worker.kill()

    def _ending(self, status: int, verdict: bytes) -> Ending:
        if verdict:
            ending = Ending(**json.loads(verdict))
            is_cancelled = ending.failure == "preempted" and self.attempt.stop_request.exists()
            return Ending("cancelled", ending.message) if is_cancelled else ending
        if self.cause:
            return self.cause
        if os.WIFSIGNALED(status):
            return death_of(os.WTERMSIG(status), processes.num_oom_kills() > self.num_oom_kills)
        return Ending("error", f"the process ended with code {os.waitstatus_to_exitcode(status)} and no result")


def _device(attempt: Attempt) -> int | None:
    """-> the file system that the root is on."""
    try:
        return attempt.path.parents[3].stat().st_dev
    except OSError:
        return None


def _is_urgent(attempt: Attempt) -> bool:
    try:
        return plain_files.read_text(attempt.stop_request).strip() == "now"
    except OSError:
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


if __name__ == "__main__":
    main(sys.argv[1:])
