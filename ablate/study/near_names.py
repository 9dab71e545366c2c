"""A file or folder that is not there: which one near by was perhaps meant."""

import difflib
import os
from collections.abc import Iterator, Sequence, Set
from itertools import islice
from pathlib import Path

MAX_ENTRIES = 1_000
"""Of a folder that is looked through for a name."""
MAX_SHOWN = 8
"""Names of which all are told, where none is near."""


def near_name(path: Path, base: Path | None, suffixes: Set[str] = frozenset()) -> str:
    """-> " Did you mean './bigg'?", or what lies there instead, or nothing; told from the folder `base`, if any."""
    if near := nearest(path, suffixes):
        return f" Did you mean {_from(base, near)!r}?"
    there, _, names = _instead(path, suffixes)
    listed = ", ".join(_from(base, there / name) for name in names)
    return f" Possible: {listed}." if 0 < len(names) <= MAX_SHOWN else ""


def nearest(path: Path, suffixes: Set[str] = frozenset()) -> Path | None:
    """-> what is there and was perhaps meant by a path that is not.

    The first part of the path that is not there is compared with what lies in its place: folders, and at the end of the
    path also files that end in one of `suffixes`.
    """
    there, (missing, *rest), names = _instead(path, suffixes)
    for near in _near(missing, names):
        whole = there.joinpath(near, *rest)
        return whole if whole.exists() else nearest(whole, suffixes) or there / near
    return None


def _instead(path: Path, suffixes: Set[str]) -> tuple[Path, tuple[str, ...], list[str]]:
    """-> the innermost folder of a path that is there, the parts of the path below it, and what lies there instead."""
    there = next(outer for outer in path.parents if outer.is_dir())
    parts = path.relative_to(there).parts
    names = _names(there, frozenset() if len(parts) > 1 else suffixes)
    return there, parts, list(islice(names, MAX_ENTRIES))


def _near(missing: str, names: Sequence[str]) -> list[str]:
    """-> the nearest name, if any is near: without its ending, in which many names agree, and its capitals."""
    stems = {name: Path(name).stem.casefold() for name in names}
    close = difflib.get_close_matches(Path(missing).stem.casefold(), set(stems.values()), n=1)
    return difflib.get_close_matches(missing, [name for name in names if stems[name] in close], n=1, cutoff=0)


def _names(folder: Path, suffixes: Set[str]) -> Iterator[str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    shown = (entry for entry in entries if not entry.name.startswith("."))
    yield from (entry.name for entry in shown if not suffixes.isdisjoint(entry.suffixes) or entry.is_dir())


def _from(base: Path | None, path: Path) -> str:
    if base is None:
        return str(path)
    relative = os.path.relpath(path, base)
    return relative if relative.startswith(os.pardir) else f"./{relative}"
