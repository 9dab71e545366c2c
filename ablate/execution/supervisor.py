"""The outer process of an attempt: no torch, its own session; it keeps log, heartbeat, time-outs and the last word."""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from ablate.core import disk, processes
from ablate.core.capped_log import CappedLog
from ablate.core.failures import Ending, ending_of
from ablate.execution import worker
from ablate.machine.gpu_leases import Lease
from ablate.store.attempt import Attempt

BEAT_S = 1.0
TICK_S = 0.2
STACKS_S = 2.0
"""For a hung worker to write its stacks into the log."""
CHUNK_BYTES = 1 << 18
STUCK_S = 60.0
"""For a killed worker to be gone; one that hangs in a driver's call is not."""


def main(arguments: list[str]) -> NoReturn:
    """Works on the attempt whose folder is given, in a new session."""
    attempt = Attempt(Path(arguments[0]).resolve())
    os.chdir(attempt.path)
    os._exit(0 if work_on(attempt).failure in ("ok", "diverged") else 1)  # after the last word, at once


def work_on(attempt: Attempt) -> Ending:
    """Sees one attempt through, as its only supervisor; must be called in a session leader of its own."""
    me = processes.identity()
    if me is None or not disk.create(attempt.worker, me.model_dump_json()) or attempt.exit is not None:
        return Ending("cancelled", "another supervisor was first, or a driver has given this attempt up")
    return Supervisor(attempt, attempt.request).run()


class Supervisor:
    """One worker, watched from its start to its end."""

    def __init__(self, attempt: Attempt, request: Any) -> None:
        self.attempt, self.request = attempt, request
        self.log = CappedLog(attempt.log)
        self.started_at = time.monotonic()
        self.beats = 0
        self.signals: list[int] = []
        self.stop_at: float | None = None
        """When the worker is killed, once it was asked to stop."""
        self.killed_at: float | None = None
        self.num_oom_kills = processes.num_oom_kills()
        self.words: Ending | None = None
        """Why the supervisor itself ended the worker."""
        self.life: tuple[float, Any] = (self.started_at, None)
        """When the worker last showed that it is getting on, and how that looked."""

    def run(self) -> Ending:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, lambda caught, _: self.signals.append(caught))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with self._card():
                ending = self._watch() if self.words is None else self.words
        except OSError as error:
            ending = ending_of(error)._replace(message=f"the supervisor failed: {error}")
        with contextlib.suppress(OSError):  # a driver sees that we are gone, and why nothing can be written
            self._say_last(ending)
        return ending

    def _say_last(self, ending: Ending) -> None:
        self.attempt.write_exit(
            failure=ending.failure,
            message=ending.message,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.started_at, 3),
        )

    # the card

    @contextlib.contextmanager
    def _card(self) -> Iterator[None]:
        """Holds its shares of the card."""
        slot = self.request["slot"]
        if slot["gpu"] is None:
            yield
            return
        claim = Lease(slot["gpu"], slot["shares"], slot["num_shares"])
        self._wait_for(claim, slot["gpu"])
        try:
            yield
        finally:
            claim.release()

    def _wait_for(self, claim: Lease, gpu: str) -> None:
        is_told = False
        while not self._is_asked_to_stop():
            if claim.is_had():
                return
            if not is_told:
                self.log.write(f"[ablate] waits for card {gpu}: another run of ablate holds it\n".encode())
                is_told = True
            self._beat()
            time.sleep(TICK_S)
        self.words = Ending("cancelled", "stopped while it waited for its card")

    # the worker

    def _watch(self) -> Ending:
        self.worker, self.output, verdict = _fork(self.attempt, self.request)
        try:
            while not _has_ended(self.worker):
                if self.killed_at and time.monotonic() > self.killed_at + STUCK_S:
                    return self._stuck()
                self._beat()
                self._drain()
                self._mind_stop()
                self._mind_stall()
            self._kill()  # what the worker left running; its pid, not yet waited for, is still its own
            _, status = os.waitpid(self.worker, 0)
            os.set_blocking(self.output, False)
            while self._read():
                pass
            return self._ending(status, _said(verdict))
        finally:
            os.close(self.output)
            os.close(verdict)

    def _beat(self) -> None:
        beats = int((time.monotonic() - self.started_at) / BEAT_S) + 1
        if beats > self.beats:
            self.beats = beats
            with contextlib.suppress(OSError):  # a full disk must not end a training
                disk.write_volatile(self.attempt.heartbeat, f"{beats}\n")

    def _drain(self) -> None:
        ready, _, _ = select.select([self.output], [], [], TICK_S)
        if ready and not self._read():
            time.sleep(TICK_S / 10)  # the worker has closed its output: it is about to end, or lives on without one

    def _read(self) -> bool:
        """-> whether there was something."""
        try:
            data = os.read(self.output, CHUNK_BYTES)
        except BlockingIOError:
            return False
        with contextlib.suppress(OSError):
            self.log.write(data)
        return bool(data)

    def _is_asked_to_stop(self) -> bool:
        return bool(self.signals) or self.attempt.stop_request.exists()

    def _mind_stop(self) -> None:
        if not self._is_asked_to_stop():
            return
        now = time.monotonic()
        if self.stop_at is None:
            self.stop_at = now + self.request["grace_s"]
        if now > self.stop_at or _is_urgent(self.attempt):
            self.words = Ending("cancelled" if self.attempt.stop_request.exists() else "preempted", "killed on request")
            self._kill()
            return
        # again and again: one that came before the worker listened was lost
        os.kill(self.worker, signal.SIGTERM)

    def _mind_stall(self) -> None:
        now, looks = time.monotonic(), self._signs_of_life()
        if looks != self.life[1]:
            self.life = now, looks
        if self.request["stall_s"] is None or now - self.life[0] < self.request["stall_s"] or self.words:
            return
        self.words = Ending("stalled", f"no step, no line in {self.request['stall_s']:g} s; its stacks are in the log")
        os.kill(self.worker, signal.SIGUSR1)
        until = now + STACKS_S
        while time.monotonic() < until and not _has_ended(self.worker):
            self._drain()
        self._kill()

    def _signs_of_life(self) -> Any:
        told = self.attempt.progress, self.attempt.metrics, self.attempt.checkpoints
        return self.log.num_bytes, *map(_stamp, told)

    def _stuck(self) -> Ending:
        """The card on which it hangs is not one to go on with."""
        failure = "gpu_fault" if self.request["slot"]["gpu"] and not self._is_asked_to_stop() else "stalled"
        why = self.words.message if self.words else "it left something running"
        return Ending(failure, f"pid {self.worker} has not ended {STUCK_S:g} s after it was killed ({why})")

    def _kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.worker, signal.SIGKILL)

    def _ending(self, status: int, said: bytes) -> Ending:
        if said:
            ending = Ending(**json.loads(said))
            is_cancelled = ending.failure == "preempted" and self.attempt.stop_request.exists()
            return Ending("cancelled", ending.message) if is_cancelled else ending
        if self.words:
            return self.words
        if os.WIFSIGNALED(status):
            return death_of(os.WTERMSIG(status), processes.num_oom_kills() > self.num_oom_kills)
        return Ending("error", f"the process ended with code {os.waitstatus_to_exitcode(status)} and no result")


def _said(verdict: int) -> bytes:
    """-> what the worker said at its end; nothing where it died without a word, whoever holds the pipe open still."""
    try:
        return os.read(verdict, 1 << 16)
    except BlockingIOError:
        return b""


def _fork(attempt: Attempt, request: dict[str, Any]) -> tuple[int, int, int]:
    """-> the worker's pid, its output to read, and its ending to read."""
    output, worker_output = os.pipe()
    verdict, worker_verdict = os.pipe()
    me = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        worker.main(attempt, request, worker_output, worker_verdict, me)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    os.close(worker_output)
    os.close(worker_verdict)
    os.set_blocking(verdict, False)
    return pid, output, verdict


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _is_urgent(attempt: Attempt) -> bool:
    try:
        return attempt.stop_request.read_text().strip() == "now"
    except OSError:
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def death_of(number: int, is_memory_out: bool) -> Ending:
    """-> what a signal means; `is_memory_out`: the kernel has killed for want of memory meanwhile."""
    told = f"killed by {signal.Signals(number).name} (exit code {128 + number})"
    if number == signal.SIGBUS:
        return Ending("memory", f"{told}: /dev/shm or a mapped file's disk is full")
    if number != signal.SIGKILL:
        return Ending("killed", told)
    if is_memory_out:
        return Ending("memory", f"{told}: this machine's memory ran out")
    return Ending("killed", f"{told}: memory ran out, or somebody killed it")


if __name__ == "__main__":
    main(sys.argv[1:])
