"""Processes known by more than a pid, so that none but ours is ever waited for or ended."""

import contextlib
import ctypes
import os
import platform
import signal
import socket
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

from ablate.core.values import Frozen

Contact: TypeAlias = Literal["alive", "gone", "unknown"]
PR_SET_PDEATHSIG = 1


class Identity(Frozen):
    """Which process, on which machine, of which boot: a pid alone may be another's by now."""

    host: str
    boot: str
    namespace: str
    """Containers of one host count their pids apart."""
    pid: int
    started: int
    """Clock ticks from boot to the start of the process, so that a changed clock changes nothing."""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def identity(pid: int | None = None) -> Identity | None:
    """-> who a process of this machine is (this one, when no pid is given), or None when it has ended."""
    pid = pid or os.getpid()
    started = _started(pid)
    if started is None:
        return None
    return Identity(host=socket.gethostname(), boot=_boot(), namespace=_namespace(), pid=pid, started=started)


def host() -> str:
    """-> this machine's name, as identities have it."""
    return socket.gethostname()


def contact(process: Identity) -> Contact:
    """Whether a process runs, as far as can be told from here."""
    if process.host != socket.gethostname():
        return "unknown"
    if process.boot != _boot():
        return "gone"
    if process.namespace != _namespace():
        return "unknown"
    return "alive" if _started(process.pid) == process.started else "gone"


def send(process: Identity, number: signal.Signals) -> None:
    """Signals exactly that process; one that has ended, or whose pid is another's, is left alone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            # the handle is opened first: from here on the pid cannot come to mean another process
            if contact(process) == "alive":
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def kill_session(leader: Identity) -> None:
    """Ends a session leader of this machine with everything in its session, the leader last."""
    if contact(leader) != "alive":
        return
    for member in [pid for pid in psutil.pids() if pid != leader.pid and _session(pid) == leader.pid]:
        process = identity(member)
        if process and _session(member) == leader.pid:
            send(process, signal.SIGKILL)
    send(leader, signal.SIGKILL)


def kill_orphans(leader: Identity, folder: Path) -> None:
    """Ends what a session leader that is gone left at work in a folder of its own."""
    if (leader.host, leader.boot, leader.namespace) != (socket.gethostname(), _boot(), _namespace()):
        return
    for member in [pid for pid in psutil.pids() if _session(pid) == leader.pid]:
        process = identity(member)
        # the leader's pid may be another's by now, but not with its people in this folder
        if process and _session(member) == leader.pid and _is_in(member, folder):
            send(process, signal.SIGKILL)


def num_oom_kills() -> int:
    """-> how often the kernel has killed for want of memory since this machine started; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


@cache
def processor() -> str:
    """-> the model of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process (not its forks) when its parent ends; ends it now if the parent already has."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _started(pid: int) -> int | None:
    try:
        # the command's name, in brackets, may hold spaces: count from the last bracket
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _is_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())
