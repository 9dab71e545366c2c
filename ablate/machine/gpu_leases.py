"""Shares of a card, claimed by locks on host-local files named by its UUID: freed by the kernel with the process.

They are good for all users and runs/ folders of a host. A card has as many locks as shares, so however many ask, no
more is given than there is.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

LOCKS = Path("/tmp/ablate-locks")  # not TMPDIR, which may be one job's or one user's own

OPEN = 0o1777
"""For every user, each for his own files."""


class Lease:
    """Some shares of a card, all of them or none at a time."""

    def __init__(self, gpu: str, shares: int, num_shares: int) -> None:
        _open_to_all(LOCKS)
        self._shares = shares
        self._locks = [_Lock(LOCKS / f"{gpu}.{number}.lock") for number in range(num_shares)]
        self._turn = _Lock(LOCKS / f"{gpu}.turn.lock")
        """Held by who waits: the others come after, so that small stages never keep a large one from its card."""

    def is_had(self) -> bool:
        """Takes the shares if they are free, and its turn before."""
        if not self._turn.is_had():
            return False
        while self._num_held < self._shares:
            if not any(lock.is_had() for lock in self._locks if not lock.is_held):
                self._give_back()
                return False
        self._turn.release()
        return True

    def release(self) -> None:
        self._give_back()
        self._turn.release()

    @property
    def _num_held(self) -> int:
        return sum(lock.is_held for lock in self._locks)

    def _give_back(self) -> None:
        for lock in self._locks:
            lock.release()


class _Lock:
    """A lock on a file that any user may have made; the kernel frees it with the processes that hold it.

    filelock takes none that another user made in a folder for all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def is_had(self) -> bool:
        """Takes it unless it is taken."""
        if self._file is None:
            file = _opened(self._path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                self._file = file
        return self.is_held

    def release(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child has the file open too
            os.close(self._file)
            self._file = None


def _opened(path: Path) -> int:
    """-> the file, made for all users; one that is there is never asked to be made: some kernels refuse another's."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(file, 0o666)  # whatever the umask is
    return file


def _open_to_all(folder: Path) -> None:
    """Makes the folder; whoever owns it mends what a kill left half made."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    with contextlib.suppress(PermissionError):
        if stat.S_IMODE(folder.stat().st_mode) != OPEN:
            folder.chmod(OPEN)
