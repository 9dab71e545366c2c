"""Two machines try between them what runs/ asks of the folder that both see: one asks, the other, in a job, answers.

Both go through the same rounds in step, by files alone; each takes times by its own monotonic clock, there and back.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.core import disk, plain_files, shared_folders

Way: TypeAlias = Literal["afresh", "listed", "changed", "polled"]
"""How the other looks: for a new file, its folder opened before; in the folder's list; at a file that it knows; for a
new file, by its name alone.
"""
WAYS: tuple[Way, ...] = ("afresh", "listed", "changed", "polled")
"""polled comes last: it takes longest where machines remember what was not there."""
NUM_ROUNDS = 5
WAY_S = 60.0
"""Of one way: then the rounds so far count."""
STEP_S = 120.0
"""For the other side's next sign, where its whole view may be a minute old."""
TICK_S = 0.02
NUM_RACES, NUM_PASSES = 20, 5
FILES = {f"part-{number}": f"{number}" * 5000 for number in range(3)}
"""Of a folder that is committed by one rename."""


class NoAnswer(Exception):
    """The other side gave no sign for too long, and in which step."""


class Delay(NamedTuple):
    """Seconds until the other machine sees what one has done."""

    median_s: float
    """Half of there and back."""
    worst_s: float
    """All of there and back: no single way took longer."""
    num_rounds: int


class Findings(NamedTuple):
    """What two machines have found out."""

    here: Mapping[str, Any]
    """See `facts`."""
    there: Mapping[str, Any]
    delays: Mapping[str, Delay]
    """By way."""
    is_whole: bool
    """A folder that was renamed was seen with all its files."""
    is_first_kept: bool
    """A second folder could not be renamed onto it."""
    num_races: int
    num_won_twice: int
    """Files that both were told they had made, or neither."""
    locks: Literal["work", "given to everyone", "none"]
    skew_s: float
    """The other clock is so far ahead."""
    skew_error_s: float


@dataclass
class Side:
    """One of the two machines."""

    folder: Path
    name: Literal["asks", "answers"]

    @property
    def other(self) -> str:
        return "answers" if self.name == "asks" else "asks"

    def put(self, name: str, value: Any) -> None:
        disk.write_volatile(self.folder / f"{name}.{self.name}", json.dumps(value))

    def get(self, name: str, way: Way = "afresh", number: int | None = None) -> Any:
        """-> what the other side has put, once it is seen; of a numbered round, where one is given. Raises NoAnswer."""
        path, limit = self.folder / f"{name}.{self.other}", time.monotonic() + STEP_S
        while time.monotonic() < limit:
            value = _seen(path, way)
            if value is not None and (number is None or value[0] == number):
                return value
            time.sleep(TICK_S)
        raise NoAnswer(f"nothing came of it in {STEP_S:.0f} s ({name})")

    def meet(self, name: str) -> None:
        """Returns once both are here."""
        self.put(name, True)
        self.get(name)


def _seen(path: Path, way: Way) -> Any:
    if way == "afresh":
        shared_folders.look_afresh(path.parent)
    if way == "listed" and path.name not in [entry.path.name for entry in plain_files.entries(path.parent)]:
        return None
    return disk.read_json(path)


def facts(folder: Path) -> dict[str, Any]:
    """-> who is there, and how much room there is."""
    return {"host": socket.gethostname(), "uid": os.geteuid(), "free": shutil.disk_usage(folder).free}


def ask(folder: Path) -> Findings:
    """The side of `doctor`: makes the folder, then goes through it all. Raises NoAnswer, OSError."""
    disk.make_folder(folder)
    return _findings(Side(folder, "asks"))


def answer(folder: Path) -> None:
    """The side of the node."""
    shared_folders.awaited(lambda: plain_files.what_is(folder), folder.parent, STEP_S)
    _findings(Side(folder, "answers"))


def _findings(side: Side) -> Findings:
    here = facts(side.folder)
    side.put("facts", here)
    there = side.get("facts")
    skew_s, skew_error_s = _skew(side)
    is_whole, is_first_kept = _commit(side)
    won, races = _races(side)
    return Findings(
        here, there, {way: _delay(side, way) for way in WAYS}, is_whole, is_first_kept,
        races, won, _locks(side), skew_s, skew_error_s,
    )  # fmt: skip


def _skew(side: Side) -> tuple[float, float]:
    """-> how far the other clock is ahead, and how far that may be wrong; both 0 on the side that answers."""
    if side.name == "answers":
        side.get("clock")
        side.put("clock", time.time())
        return 0.0, 0.0
    began = time.time()
    side.put("clock", began)
    theirs, ended = side.get("clock"), time.time()
    return theirs - (began + ended) / 2, (ended - began) / 2


# what is found out


def _delay(side: Side, way: Way) -> Delay:
    """There and back, again and again: each waits in this way for what the other puts."""
    took_s: list[float] = []
    side.meet(f"{way}-begin")
    began = time.monotonic()
    for number in range(NUM_ROUNDS):
        name = way if way == "changed" else f"{way}-{number}"
        sent = time.monotonic()
        if side.name == "asks":
            is_last = number + 1 == NUM_ROUNDS or sent - began > WAY_S
            side.put(name, [number, is_last])
        value = side.get(name, way, number)
        took_s.append(time.monotonic() - sent)
        if side.name == "answers":
            side.put(name, value)
        if value[1]:
            break
    return Delay(statistics.median(took_s) / 2, max(took_s), len(took_s))


def _commit(side: Side) -> tuple[bool, bool]:
    """-> whether a folder that one renames is seen whole, and whether the other cannot put its own in its place."""
    target, own = side.folder / "committed", side.folder / f"own.{side.name}"
    disk.make_folder(own)
    for name, text in FILES.items():
        disk.write(own / name, text if side.name == "asks" else "another's")
    if side.name == "asks":
        disk.rename(own, target)
        side.put("committed", True)
        is_whole, is_refused = side.get("committed")
        return bool(is_whole), bool(is_refused) and _holds_all(target)
    side.get("committed")
    shared_folders.awaited(lambda: plain_files.what_is(target), side.folder)
    is_whole = _holds_all(target)
    side.put("committed", [is_whole, not _is_moved_onto(own, target)])
    return is_whole, True


def _holds_all(folder: Path) -> bool:
    return all(_read(folder / name) == text for name, text in FILES.items())


def _read(path: Path) -> str | None:
    try:
        return plain_files.read_text(path)
    except OSError:
        return None


def _is_moved_onto(own: Path, target: Path) -> bool:
    try:
        disk.rename(own, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _races(side: Side) -> tuple[int, int]:
    """Both make the same files, from the two ends; of each, one alone may hear that it made it. -> wrong ones, all."""
    won: list[str] = []
    for number in range(NUM_PASSES):
        side.meet(f"race-{number}")
        names = [f"race-{number}-{file}" for file in range(NUM_RACES)]
        for name in names if side.name == "asks" else reversed(names):
            if disk.create(side.folder / name, side.name):
                won.append(name)
    side.put("won", won)
    theirs = side.get("won")
    num = NUM_PASSES * NUM_RACES
    once = set(won) ^ set(theirs)
    return num - len(once), num


def _locks(side: Side) -> Literal["work", "given to everyone", "none"]:
    """Whether a lock that one machine holds is refused to the other."""
    path = side.folder / "lock"
    with disk.opened_to_append(path) as file:
        if side.name == "answers":
            side.get("locked")
        state = _lock(file.fileno())
        side.put("locked", state)
        if side.name == "answers":
            return "none"
        theirs = side.get("locked")
    if "none" in (state, theirs):
        return "none"
    return "work" if theirs == "refused" else "given to everyone"


def _lock(handle: int) -> str:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "refused"
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return "none"
        raise
    return "had"
