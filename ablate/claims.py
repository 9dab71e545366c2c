"""Shares of a card, claimed by locks on host-local files named by its UUID: freed by the kernel with the process.

They are good for all users and runs/ folders of a host. A card has as many locks as shares, so however many ask, no
more is given than there is.
"""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS = Path("/tmp/ablate-locks")  # not TMPDIR, which may be one job's or one user's own


class Claim:
    """Some shares of a card, all of them or none at a time."""

    def __init__(self, gpu: str, shares: int, num_shares: int) -> None:
        with contextlib.suppress(FileExistsError):
            LOCKS.mkdir()
            LOCKS.chmod(0o1777)  # for every user; only where it is ours: what lies there may be anybody's
        self._shares = shares
        self._locks = [_lock(f"{gpu}.{number}") for number in range(num_shares)]
        self._turn = _lock(f"{gpu}.turn")
        """Held by who waits: the others come after, so that small stages never keep a large one from its card."""

    def is_had(self) -> bool:
        """Takes the shares if they are free, and its turn before."""
        if not _is_had(self._turn):
            return False
        while self._num_held < self._shares:
            if not any(_is_had(lock) for lock in self._locks if not lock.is_locked):
                self._give_back()
                return False
        self._turn.release()
        return True

    def release(self) -> None:
        self._give_back()
        self._turn.release()

    @property
    def _num_held(self) -> int:
        return sum(lock.is_locked for lock in self._locks)

    def _give_back(self) -> None:
        for lock in self._locks:
            lock.release()


def _lock(name: str) -> FileLock:
    return FileLock(LOCKS / f"{name}.lock", mode=0o666, thread_local=False, fallback_to_soft=False)


def _is_had(lock: FileLock) -> bool:
    if not lock.is_locked:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
    return lock.is_locked
