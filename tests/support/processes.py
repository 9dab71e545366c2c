"""What a process is at, asked so that one that ends meanwhile is no error."""

import contextlib

import psutil


def is_alive(process: psutil.Process) -> bool:
    """-> whether it runs: neither gone nor waiting to be reaped."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def command_line(process: psutil.Process) -> list[str]:
    """-> its words; none of one that has ended or that others may not look into."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.cmdline()
    return []


def environment(process: psutil.Process) -> dict[str, str]:
    """-> its variables; none of one that has ended or that others may not look into."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def children(process: psutil.Process) -> list[psutil.Process]:
    """-> those that it started and that have not ended; none where it has ended itself."""
    with contextlib.suppress(psutil.Error):
        return [one for one in process.children() if is_alive(one)]
    return []
