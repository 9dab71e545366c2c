"""Where the locks on cards lie: for all users where an administrator made a folder for that, else for one's own runs.

Nothing that another user may have laid in its place is used: no link is followed, and owner and mode are looked at.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, plain_files

SHARED = Path("/var/lib/ablate/locks")
"""Made by an administrator: `install -d -o root -m 1777 /var/lib/ablate/locks`."""
TEMPORARY = Path("/tmp")  # not TMPDIR, which may be one job's own; nor XDG_RUNTIME_DIR, which ends with a login
NAME = "ablate-locks-"
"""Of a user's own folder there, followed by the uid."""
OWN, OPEN = 0o700, 0o1777


class LockFolder(NamedTuple):
    """A folder that may be used."""

    path: Path
    is_shared: bool
    """By all users of this machine."""
    problems: tuple[str, ...] = ()
    """Why those that come before it are not used, for a reader."""


def lock_folders() -> Iterator[LockFolder]:
    """-> those that may be used, the best first; a folder of one's own is made.

    Raises OSError where there is none at all.
    """
    problems: tuple[str, ...] = ()
    if (what := plain_files.what_is(SHARED)) is not None:
        problem = _why_not_shared(SHARED) if what == "a folder" else f"{SHARED} is {what}, not a folder"
        if problem is None:
            yield LockFolder(SHARED, is_shared=True)
        problems += (f"{problem}: cards are shared by locks with your own runs alone",) if problem else ()
    elif others := ", ".join(f"uid {uid}" for uid in _others()):
        problems += (
            f"{others} ran ablate on this machine too, and there is no {SHARED}: two users who start in the same"
            " second may be given one card; `ablate doctor` says how an administrator makes that folder",
        )
    for path in (TEMPORARY / f"{NAME}{os.getuid()}", disk.user_cache() / f"locks-{socket.gethostname()}"):
        if problem := _why_not_own(path):
            problems += (problem,)
        else:
            yield LockFolder(path, is_shared=False, problems=problems)
    raise PermissionError(1, "; ".join(problems) or "no folder for locks can be made", str(path))


def _others() -> Iterator[int]:
    """-> the other users who have a folder of their own here, by the owner that its name says."""
    for path in sorted(TEMPORARY.glob(f"{NAME}*")):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and path.name == f"{NAME}{status.st_uid}" and status.st_uid != os.getuid():
                yield status.st_uid


def opened(folder: Path) -> int:
    """-> the folder itself, to open files in it; a link is not followed."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _status(folder: Path) -> os.stat_result:
    handle = opened(folder)
    try:
        return os.fstat(handle)
    finally:
        os.close(handle)


def _why_not_shared(folder: Path) -> str | None:
    """-> why a folder is none for all users, or None."""
    try:
        status = _status(folder)
    except OSError as error:
        return f"{folder} cannot be used: {error.strerror}"
    if status.st_uid != 0:
        return f"{folder} belongs to uid {status.st_uid}, not to an administrator"
    if stat.S_IMODE(status.st_mode) != OPEN:
        return (
            f"{folder} has the mode {stat.S_IMODE(status.st_mode):04o}, not {OPEN:04o}, which lets each user keep a"
            " lock that no other can remove"
        )
    return None


def _why_not_own(folder: Path) -> str | None:
    """-> why a folder is not our own, or None; it is made where there is none, and its mode mended where it is ours."""
    if (what := plain_files.what_is(folder)) not in ("a folder", None):
        return f"{folder} is {what}, which somebody laid there: it is not used"
    try:
        _make(folder)
        status = _status(folder)
        if status.st_uid != os.getuid():
            return f"{folder} belongs to uid {status.st_uid}, who laid it there: it is not used"
        if stat.S_IMODE(status.st_mode) != OWN:
            _close_to_others(folder)
    except OSError as error:
        return f"{folder} cannot be used: {error.strerror}"
    return None


def _make(folder: Path) -> None:
    disk.make_folder(folder.parent)
    if plain_files.what_is(folder) is None:
        folder.mkdir(mode=OWN, exist_ok=True)


def _close_to_others(folder: Path) -> None:
    handle = opened(folder)
    try:
        if os.fstat(handle).st_uid == os.getuid():
            os.fchmod(handle, OWN)
    finally:
        os.close(handle)
