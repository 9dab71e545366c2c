"""Copies of models on a node's own disk, where a profile says `stage_in`: one worker copies, all of the node read it.

How, not what: keys, results and provenance say nothing of it. Where no copy can be had, the log says why, and the model
is read where it lies.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.core import disk, file_digests, plain_files
from ablate.core.errors import StageError
from ablate.core.text import data_size
from ablate.core.values import digest

PLACE, MOST_GB = "ABLATE_STAGE_IN", "ABLATE_STAGE_IN_GB"
"""In a worker's environment: `local`, or a folder, whose variables are the node's; what is kept of copies at most."""
OWN_DISK = ("SLURM_TMPDIR", "TMPDIR")
"""What a cluster calls a node's own disk; else /tmp."""
DEFAULT_GB = 100.0
SPARE_BYTES = 1 << 30
"""Stays free."""
WAIT_S = 1800.0
"""For another worker's copy."""
POLL_S = 0.2
SAY_S = 60.0
"""Between two lines of the log: a stage that says nothing for half an hour counts as stalled."""
CHUNK_BYTES = 1 << 24
STAMPS = ".ablate-copy.json"
_in_use: dict[Path, int] = {}
"""Copies that this process reads -> the lock that keeps them, until it ends."""


class NoCopy(Exception):
    """There is none, and why."""


class ProgressLog:
    """Says now and then what takes long."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        if time.monotonic() - self._said_at >= SAY_S:
            self._said_at = time.monotonic()
            print(f"[ablate] stage_in: {text}", flush=True)


def settings(options: Mapping[str, Any]) -> dict[str, str]:
    """-> what a worker's environment says, from the options of its profile."""
    place = options.get("stage_in")
    return {PLACE: str(place), MOST_GB: str(options.get("stage_in_gb", DEFAULT_GB))} if place else {}


def near(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Path:
    """-> where the files of a model are to be read; `files`: name -> `size`, `sha256`, of all that belong to it.

    Raises StageError where a file turns out to be another than is listed.
    """
    place = os.environ.get(PLACE)
    if not place or not files:
        return folder
    try:
        return _copy(_base(place), folder, files)
    except (OSError, NoCopy) as error:
        print(f"[ablate] stage_in: {folder} is read where it is: {error}")
        return folder


def _base(place: str) -> Path:
    """-> the folder of this user's copies. Raises NoCopy where it is not to be trusted."""
    named = next(filter(None, map(os.environ.get, OWN_DISK)), "/tmp") if place == "local" else os.path.expandvars(place)
    if "$" in named or not Path(named).is_absolute():
        raise NoCopy(f"stage_in: {place} names no folder here ({named})")
    base = Path(named) / f"ablate-models-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700, parents=True)
    stat = base.lstat()
    if not plain_files.is_folder(base) or stat.st_uid != os.getuid() or stat.st_mode & 0o022:
        raise NoCopy(f"{base} is not a folder of this user's alone")
    return base


def _copy(base: Path, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Path:
    """-> a copy that stays as long as this process lives."""
    copy = base / digest({name: dict(listed) for name, listed in files.items()})[:16]
    if copy not in _in_use:
        _in_use[copy] = _kept(copy, folder, files)
        disk.touch(copy / STAMPS)
    elif not _is_whole(copy):  # by whoever tidies the node's disk: no worker of ours removes what is read
        raise NoCopy(f"{copy} was removed or changed while this process read it")
    return copy


def _kept(copy: Path, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> int:
    """-> a lock, shared with all who read the copy; the first to come makes it, alone."""
    lock = os.open(_lock_of(copy), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    until, progress = time.monotonic() + WAIT_S, ProgressLog()
    try:
        while time.monotonic() < until:
            if _is_locked(lock, fcntl.LOCK_SH) and _is_whole(copy):
                return lock
            if _is_locked(lock, fcntl.LOCK_EX) and not _is_whole(copy):
                _make(copy, folder, files)
            progress.say(f"waits for another worker's copy of {folder}")
            time.sleep(POLL_S * int(not _is_whole(copy)))
        raise NoCopy(f"another worker has been copying it for {WAIT_S:.0f} s")
    except BaseException:
        os.close(lock)
        raise


def _lock_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.lock")


def _is_locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# one copy


def _make(copy: Path, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Beside it, then by one rename. Raises NoCopy where there is no room, StageError as `near` does."""
    beside, began = copy.with_name(f"{copy.name}.new"), time.monotonic()
    for left in (copy, beside):  # of one who was killed, or changed by whoever
        disk.remove_tree(left)
    num_bytes = sum(listed["size"] for listed in files.values())
    _make_room(copy.parent, num_bytes)
    print(f"[ablate] stage_in: copies {folder} ({data_size(num_bytes)}) to {copy}", flush=True)
    progress = ProgressLog()
    try:
        for name, listed in files.items():
            _copy_file(folder / name, beside / name, listed, progress)
        disk.write_json(beside / STAMPS, {name: _stamp(beside / name) for name in files})
        disk.rename(beside, copy)
    except BaseException:
        disk.remove_tree(beside)
        raise
    print(f"[ablate] stage_in: copied in {time.monotonic() - began:.1f} s", flush=True)


def _copy_file(source: Path, target: Path, listed: Mapping[str, Any], progress: ProgressLog) -> None:
    disk.make_folder(target.parent)
    sha256, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
    with plain_files.opened(source, follows=True) as read, target.open("xb") as written:
        while num := read.readinto(buffer):
            chunk = memoryview(buffer)[:num]
            sha256.update(chunk)
            written.write(chunk)
            progress.say(f"{target.name}: {data_size(written.tell())} of {data_size(listed['size'])}")
    if sha256.hexdigest() != listed["sha256"]:
        file_digests.reread_sha256(source)  # what was remembered of it is not so
        raise StageError(f"{source} has other content than was fetched", "missing_input")
    disk.sync_file(target)


def _is_whole(copy: Path) -> bool:
    """Whether every file is the one that was copied."""
    stamps: Any = disk.read_json(copy / STAMPS)
    try:
        return isinstance(stamps, dict) and all(_stamp(copy / name) == stamp for name, stamp in stamps.items())
    except OSError:
        return False


def _stamp(path: Path) -> list[int]:
    stat = path.lstat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


# room


def _make_room(base: Path, num_bytes: int) -> None:
    """Removes copies that nobody reads, those first that were not read for longest. Raises NoCopy."""
    most = float(os.environ.get(MOST_GB) or DEFAULT_GB) * 1e9
    if num_bytes > most:
        raise NoCopy(f"{data_size(num_bytes)} are more than stage_in_gb lets it keep ({data_size(int(most))})")
    copies = sorted(_copies(base), key=_read_at)
    while copies and (_kept_bytes(base) + num_bytes > most or _lacks(base, num_bytes)):
        _remove_unless_read(copies.pop(0))
    if _kept_bytes(base) + num_bytes > most:
        raise NoCopy(f"stage_in_gb is full ({data_size(int(most))}) of what other stages read")
    if _lacks(base, num_bytes):
        free = data_size(shutil.disk_usage(base).free)
        raise NoCopy(f"{free} are free at {base}, {data_size(num_bytes)} and {data_size(SPARE_BYTES)} are needed")


def _copies(base: Path) -> Iterator[Path]:
    yield from (
        base / entry.path.name.removesuffix(".lock") for entry in plain_files.entries(base) if entry.what == "a file"
    )


def _read_at(copy: Path) -> float:
    try:
        return (copy / STAMPS).stat().st_mtime
    except OSError:
        return 0.0


def _kept_bytes(base: Path) -> int:
    return sum(path.lstat().st_size for path in disk.files_below(base))


def _lacks(base: Path, num_bytes: int) -> bool:
    return shutil.disk_usage(base).free < num_bytes + SPARE_BYTES


def _remove_unless_read(copy: Path) -> None:
    lock = os.open(_lock_of(copy), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if copy not in _in_use and _is_locked(lock, fcntl.LOCK_EX):
            for left in (copy, copy.with_name(f"{copy.name}.new")):
                disk.remove_tree(left)
    finally:
        os.close(lock)
