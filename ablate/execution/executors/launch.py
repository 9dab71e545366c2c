"""Two ways to start a worker on this machine: a fresh process, or a fork of one that has imported all."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.core import descendants, disk, processes
from ablate.execution.executors.base import environment, offline, python
from ablate.store.attempt import Attempt

READY_S = 180.0
"""For the fork server to import everything; then stages start without it."""


def start_fresh(attempt: Attempt) -> "subprocess.Popen[bytes]":
    """Starts a supervisor in a session of its own; what it prints itself goes into the attempt's log."""
    with disk.opened_to_append(attempt.log) as log:
        return subprocess.Popen(
            python("ablate.execution.supervisor", str(attempt.path)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(attempt.request or {}) | {descendants.MARK: descendants.mark_of(attempt.path)},
            cwd=attempt.path,
            start_new_session=True,
        )


class ForkServer:
    """The driver's end of the fork server. Requests made before it is ready are answered once it is."""

    def __init__(self, *, has_assigned_card: bool = False) -> None:
        """`has_assigned_card`: what the environment says of cards is for its forks to know."""
        self.line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.setblocking(False)
        slot = {"device": "cuda" if has_assigned_card else "cpu", "gpu": None, "threads": 1}
        self._process = subprocess.Popen(
            self._command(far.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=offline(environment({"slot": slot, "is_online": False})) | {descendants.MARK: descendants.NO_MARK},
            pass_fds=(far.fileno(),),
            start_new_session=True,
        )
        far.close()
        self._started_at = time.monotonic()
        self._is_ready = False
        self._asked: dict[Path, Attempt] = {}
        self._forked: dict[Path, int] = {}
        """-> pid of the supervisor, as the server tells it."""

    def _command(self, handle: int) -> list[str]:
        return python("ablate.execution.fork_server", str(handle), str(os.getpid()))

    def ask(self, attempt: Attempt) -> None:
        """Requests a worker; `refused` tells if none will come."""
        self._asked[attempt.path] = attempt
        with contextlib.suppress(OSError):
            self.line.send(json.dumps({"attempt": str(attempt.path)}).encode())

    def is_asked(self, attempt: Attempt) -> bool:
        return attempt.path in self._asked

    def refused(self) -> Iterator[Attempt]:
        """The requests that came to nothing: it said no, it is dead, or it does not come up."""
        for words in self._heard():
            self._is_ready = True
            attempt = self._asked.pop(Path(words.get("attempt", "")), None)
            if attempt and "pid" in words:
                self._forked[attempt.path] = words["pid"]
            elif attempt:
                yield attempt
        if not self.is_usable:
            while self._asked:
                yield self._asked.popitem()[1]

    def has_lost(self, attempt: Attempt) -> bool:
        """Whether the supervisor that was forked for an attempt has ended, signed or not."""
        return attempt.path in self._forked and processes.identity(self._forked[attempt.path]) is None

    @property
    def is_usable(self) -> bool:
        is_late = not self._is_ready and time.monotonic() - self._started_at > READY_S
        return self._process.poll() is None and not is_late

    def _heard(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(OSError):
            while words := self.line.recv(1 << 16):
                yield json.loads(words)

    def close(self) -> None:
        """Ends it; the workers that it forked live on."""
        self.line.close()
        self._process.kill()
        self._process.wait()
