"""The inner process of a worker, as its supervisor holds it: a child in a group of its own, its output, its verdict."""

import contextlib
import os
import select
import signal
from typing import Any

from ablate.execution import worker
from ablate.store.attempt import Attempt

CHUNK_BYTES = 1 << 18


class WorkerProcess:
    """Forked when made; to be waited for, then closed."""

    def __init__(self, attempt: Attempt, request: dict[str, Any]) -> None:
        self._output, worker_output = os.pipe()
        self._verdict, worker_verdict = os.pipe()
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            worker.main(attempt, request, worker_output, worker_verdict, supervisor)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)
        os.close(worker_output)
        os.close(worker_verdict)
        os.set_blocking(self._verdict, False)

    @property
    def has_ended(self) -> bool:
        """Its pid stays its own until it is waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def has_output(self, wait_s: float) -> bool:
        """Whether something can be read now, or within so long; also once it has closed its output."""
        return bool(select.select([self._output], [], [], wait_s)[0])

    def read(self) -> bytes:
        """-> some of its output; none where it has closed it, or where there is none after its end."""
        try:
            return os.read(self._output, CHUNK_BYTES)
        except BlockingIOError:
            return b""

    def send(self, number: signal.Signals) -> None:
        """A signal for the worker alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """The worker with its group: it leaves nothing running there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """-> its status, once it has ended. What it forked may hold its output open still: from here on it is read
        as far as it goes, and none is waited for.
        """
        _, status = os.waitpid(self.pid, 0)
        os.set_blocking(self._output, False)
        return status

    def verdict(self) -> bytes:
        return read_verdict(self._verdict)

    def close(self) -> None:
        os.close(self._output)
        os.close(self._verdict)


def read_verdict(pipe: int) -> bytes:
    """-> what the worker wrote at its end; nothing where it died without a word, whoever holds the pipe open still."""
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return b""
