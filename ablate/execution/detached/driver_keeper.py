"""Starts a driver on a node of Ray's, and has it go once its actor is gone: what it has at work goes on."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from ablate.core import descendants, disk, processes, secrets
from ablate.execution.ray_cluster.keeper import is_closed

LEAVE_S = 10.0
"""For a driver to go, once it was told to."""


def main(log: Path, words: list[str]) -> None:
    """Returns once nothing is left of the driver. Its standard input is open for as long as the actor lives."""
    descendants.adopt_orphans()
    driver = _start(log, words)
    while driver.poll() is None and not is_closed(0):
        descendants.reap(but=driver.pid)
    driver.send_signal(signal.SIGUSR2)
    with contextlib.suppress(subprocess.TimeoutExpired):
        driver.wait(LEAVE_S)
    descendants.kill_all()


def _start(log: Path, words: list[str]) -> "subprocess.Popen[bytes]":
    keeper = os.getpid()
    with disk.opened_to_append(log) as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={name: value for name, value in os.environ.items() if not secrets.is_named_so(name)},
            start_new_session=True,
            preexec_fn=lambda: processes.die_with_parent(keeper),  # no thread runs here: nothing can be held
        )


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # for whoever waits: it has begun
    main(Path(sys.argv[1]), sys.argv[2:])
