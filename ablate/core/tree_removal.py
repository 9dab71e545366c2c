"""The removal of a folder with all in it, however deep it is, whatever modes its folders have and whoever reads there.

Over NFS and FUSE a file that is open somewhere is not deleted but renamed until it is closed: its folder stays so long.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.core import plain_files

DEEP = 64
"""Folders in folders that are removed as they are; what lies deeper is brought up first."""


def remove(path: Path) -> None:
    """Removes a folder; links in it are removed themselves. Raises OSError, FileNotFoundError where there is none.

    What somebody has open stays, with the folders that it is in, and goes with the next removal.
    """
    _flatten(path)
    shutil.rmtree(path, onerror=_let_in)


def _is_kept_by_readers(name: str, code: int | None) -> bool:
    """Whether nothing is left but what is deleted already, and open somewhere."""
    if plain_files.is_deleted_in_use(Path(name).name):
        return code in (errno.EBUSY, errno.ENOENT)
    if code not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
        return False
    if _goes_now(Path(name)):
        return True
    inside = plain_files.entries(Path(name))
    return bool(inside) and all(map(_is_all_in_use, inside))


def _goes_now(folder: Path) -> bool:
    """Whether a folder that was not empty is gone: whoever read the last file of it may have closed that since."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is_all_in_use(entry: plain_files.Entry) -> bool:
    """Whether it is such a file, or a folder of nothing else."""
    if entry.what == "a folder":
        return _is_kept_by_readers(str(entry.path), errno.ENOTEMPTY)
    return plain_files.is_deleted_in_use(entry.path.name)


def _let_in(act: Callable[..., Any], name: str, error: Any) -> None:
    """Tries once more where a folder of ours let nobody in."""
    if isinstance(error[1], OSError) and _is_kept_by_readers(name, error[1].errno):
        return
    if not isinstance(error[1], PermissionError):
        raise error[1]
    for folder in (Path(name).parent, Path(name)):
        with contextlib.suppress(OSError):
            if not folder.is_symlink():
                folder.chmod(0o700)
    if act in (os.scandir, os.open, os.lstat):
        shutil.rmtree(name)
    else:
        act(name)


def _flatten(top: Path) -> None:
    """Renames what lies deeper than DEEP into the folder itself: no name is too long, and no call nests too far."""
    folders, num = [(top, 0)], 0
    while folders:
        folder, depth = folders.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as inside:
            below = [Path(one.path) for one in inside if one.is_dir(follow_symlinks=False)]
            for one in below:
                if depth < DEEP:
                    folders.append((one, depth + 1))
                    continue
                num += 1
                shallow = top / f".deep.{os.getpid()}.{num}"
                one.rename(shallow)
                folders.append((shallow, 1))
