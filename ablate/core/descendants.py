"""All that a process has started, also what was made to outlive it: found by descent, or by a mark in the environment.

A supervisor adopts whatever its worker leaves behind, however often that forked or made a session of its own. Should
the supervisor be killed, the mark tells its people from all others.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ablate.core import processes
from ablate.core.processes import Identity

PR_SET_CHILD_SUBREAPER = 36
MARK = "ABLATE_ATTEMPT"
"""The variable of the environment that says for which attempt a process works."""
NO_MARK = "0" * 32
"""What the fork server starts with: room for a mark of its forks."""
_adopter: int | None = None
"""The pid of the process that adopts: its forks do not."""


def adopt_orphans() -> None:
    """From now on what a descendant leaves behind becomes a child of this process, and all children are its to end."""
    global _adopter
    _adopter = os.getpid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(but: int) -> None:
    """Takes note of the ends of adopted children, as far as they came before that of one that is waited for."""
    if _adopter != os.getpid():
        return
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == but:
                return
            os.waitpid(ended.si_pid, 0)


def kill_all(but: int | None = None, patience_s: float = 10.0) -> bool:
    """Ends every descendant of this process, where it adopts, but for one. -> whether all are gone."""
    if _adopter != os.getpid():
        return True
    until = time.monotonic() + patience_s
    while left := [one for one in _descendants() if one.pid != but]:
        for one in left:
            processes.send(one, signal.SIGKILL)
        reap(but or 0)
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    reap(but or 0)
    return True


def _descendants() -> list[Identity]:
    """-> those that live."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process().children(recursive=True)
        return [one for child in children if (one := processes.identity(child.pid))]
    return []


# the mark


def mark_of(folder: Path) -> str:
    """-> what stands in the environment of whoever works in an attempt's folder."""
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[: len(NO_MARK)]


def take_mark(mark: str) -> None:
    """Marks this process and those that it will start, also where they never start a program of their own.

    The system shows the environment that a program was started with: a fork of the fork server writes over its room.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(MARK.encode())
    if place and len(ctypes.string_at(place)) == len(mark):
        ctypes.memmove(place, mark.encode(), len(mark))
    os.environ[MARK] = mark


def kill_marked(mark: str) -> None:
    """Ends whoever has a mark, until nobody is left; none that cannot be looked at, and never this process."""
    for _ in range(100):  # what they start meanwhile has it too
        marked = list(_marked(mark))
        for one in marked:
            processes.send(one, signal.SIGKILL)
        if not marked:
            return
        time.sleep(0.02)


def _marked(mark: str) -> Iterator[Identity]:
    entry = f"{MARK}={mark}".encode()
    for pid in psutil.pids():
        one = processes.identity(pid) if pid != os.getpid() else None
        # asked in this order: should the pid come to mean another process, its start is not the one that is signalled
        if one and entry in _environment(pid).split(b"\0"):
            yield one


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
