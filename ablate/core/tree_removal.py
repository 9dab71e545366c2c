"""The removal of a folder with all in it, however deep it is and whatever modes its folders have."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEP = 64
"""Folders in folders that are removed as they are; what lies deeper is brought up first."""


def remove(path: Path) -> None:
    """Removes a folder; links in it are removed themselves. Raises OSError, FileNotFoundError where there is none."""
    _flatten(path)
    shutil.rmtree(path, onerror=_let_in)


def _let_in(act: Callable[..., Any], name: str, error: Any) -> None:
    """Tries once more where a folder of ours let nobody in."""
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
