"""A folder that several machines see: what one has done, another may see seconds later, so one look says no absence."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LATE_S = 60.0
"""So late at most: NFS asks no later than that for what it knows of a folder (acdirmax, nfs(5))."""
POLL_S = 0.2


def look_afresh(folder: Path) -> None:
    """Has the next look at a name in a folder asked of the server.

    NFS remembers what was not there, until it learns that the folder has changed; it asks for that whenever a folder
    is opened ("close-to-open", nfs(5)). A folder that is not there itself may be one of those. Elsewhere this does
    nothing.
    """
    if _is_opened(folder) or folder == folder.parent:
        return
    look_afresh(folder.parent)
    _is_opened(folder)


def _is_opened(folder: Path) -> bool:
    """-> False where it is not there."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def awaited(look: Callable[[], T | None], folder: Path, patience_s: float = LATE_S) -> T | None:
    """-> what `look` gives once another machine's doing in `folder` can be seen here; None after `patience_s`."""
    until = time.monotonic() + patience_s
    while (there := look()) is None and time.monotonic() < until:
        time.sleep(POLL_S)
        look_afresh(folder)
    return there
