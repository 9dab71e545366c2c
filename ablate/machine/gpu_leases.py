"""Shares of cards, claimed by locks on host-local files named by its UUID: freed by the kernel with the process.

They are good for all runs/ folders of a user, and for all users where an administrator made a folder for that (see
`lock_folders`). A card has as many locks as shares, so however many ask, no more is given than there is.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator

from ablate.core.plain_files import NoPlainFile
from ablate.machine import lock_folders
from ablate.machine.lock_folders import LockFolder


class Lease:
    """Some shares of a card, all of them or none at a time."""

    def __init__(self, gpu: str, shares: int, num_shares: int) -> None:
        names = [*(f"{gpu}.{number}.lock" for number in range(num_shares)), f"{gpu}.turn.lock"]
        self.folder = _folder_for(names)
        self.gpu, self._shares = gpu, shares
        *self._locks, self._turn = (_Lock(self.folder, name) for name in names)
        """The last is held by who waits: others come after, so that small stages never keep a large one from its card.
        """

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


class CardLeases:
    """The shares of several cards, of all or of none: who waits for one card keeps none of the others from anybody."""

    def __init__(self, gpus: Iterable[str], shares: int, num_shares: int) -> None:
        self._leases = [Lease(gpu, shares, num_shares) for gpu in sorted(gpus)]
        """In one order for everybody, so that of two who want the same the first has all."""

    @property
    def problems(self) -> Iterator[str]:
        """What keeps cards from being shared as an administrator meant it."""
        for lease in self._leases:
            yield from lease.folder.problems

    def missing(self) -> str | None:
        """Takes all if they are free. -> a card that is not, in front of which it has its turn, as `Lease` has it."""
        for lease in self._leases:
            if not lease.is_had():
                self._give_back(but=lease)
                return lease.gpu
        return None

    def close(self) -> None:
        self._give_back()

    def _give_back(self, but: Lease | None = None) -> None:
        for lease in self._leases:
            if lease is not but:
                lease.release()


class _Lock:
    """A lock on a file that any user may have made; the kernel frees it with the processes that hold it.

    filelock takes none that another user made in a folder for all.
    """

    def __init__(self, folder: LockFolder, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def is_had(self) -> bool:
        """Takes it unless it is taken."""
        if self._file is None:
            file = _opened(self._folder, self._name)
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


def _folder_for(names: list[str]) -> LockFolder:
    """-> the first folder in which all these files can be had: another user may have laid something in their place."""
    problems: tuple[str, ...] = ()
    for folder in lock_folders.lock_folders():
        try:
            for name in names:
                os.close(_opened(folder, name))
        except OSError as error:
            why = f"{folder.path}/{name} cannot be used ({error.strerror}): ask its owner, or an administrator"
            problems += (f"{why}; until then cards are shared by locks with your own runs alone",)
            continue
        return folder._replace(problems=(*folder.problems, *problems))
    raise AssertionError


def _opened(folder: LockFolder, name: str) -> int:
    """-> the file; one that is there is never asked to be made: some kernels refuse another's.

    Raises OSError for what is no file, and what other users may not open.
    """
    place = lock_folders.opened(folder.path)
    try:
        file = _opened_in(place, name, is_shared=folder.is_shared)
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NoPlainFile(2, "it is no ordinary file", name)
    return file


def _opened_in(place: int, name: str, *, is_shared: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, flags, dir_fd=place)
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
    except FileExistsError:
        return os.open(name, flags, dir_fd=place)
    if is_shared:
        os.fchmod(file, 0o666)  # whatever the umask is
    return file
