"""What may lie where under runs/; what is a link, a pipe or of another sort than its place wants is set aside."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, plain_files
from ablate.core.errors import AblateError
from ablate.core.plain_files import DEEPEST, Entry
from ablate.store.store import Store, is_number

FOLDERS = ("stages", "attempts", "studies", "jobs", "checks", "tokens", "aside", "trash")
"""Of runs/."""
OUT_OF_USE = ("aside", "trash")
"""What lies in them is of no use to anybody, whatever it is."""
RECORDS = ("heartbeat", "log.txt", "stop")
"""Of an attempt, and of a job of a cluster, beside those that end as FILES."""
FILES = (".json", ".jsonl", ".safetensors")
"""How names of files end, wherever they lie."""


class Strange(NamedTuple):
    """Something under runs/ that a run would neither read nor write."""

    path: Path
    what: str | None
    """As `plain_files.what_is` says."""
    why: str
    is_closed: bool = False
    """A folder that its mode closes: what is in it may be whole."""


def strange(runs: Path) -> list[Strange]:
    """-> what has no business where it lies, links and pipes foremost; it is looked at by its name alone."""
    if plain_files.what_is(runs, follows=True) != "a folder":
        what = plain_files.what_is(runs)
        return [Strange(runs, what, why)] if (why := _why_no_root(runs)) else []
    why = _why_closed(runs)
    return [Strange(runs, "a folder", why, is_closed=True)] if why else list(dict.fromkeys(_strange_in(runs, ())))


def mend(store: Store) -> list[str]:
    """Sets aside what is strange under a root, so that a run makes it again. -> what it did, for a reader.

    Nothing of it is opened, and no link is followed but one that is runs/ itself. Raises AblateError where runs/ is a
    link to a place that is not there.
    """
    notes = _mend_root(store.runs)
    while closed := [one.path for one in strange(store.runs) if one.is_closed and _is_opened(one.path)]:
        notes += [f"{place_below(store.root, path)}: its mode let nobody in; changed" for path in closed]
    for path, what, why, _ in strange(store.runs):
        if plain_files.what_is(path) != what:  # another run was first, and has made it again
            continue
        try:
            moved = _moved_aside(store, path)
        except FileNotFoundError:  # another run was first
            continue
        notes.append(f"{place_below(store.runs, path)}: {why}; set aside as {place_below(store.root, moved)}")
    return notes


# what is looked for


def _strange_in(folder: Path, parts: tuple[str, ...]) -> Iterator[Strange]:
    for entry in _inside(folder):
        below = (*parts, entry.path.name)
        if why := _why_strange(entry, below):
            yield Strange(entry.path, entry.what, why)
        elif len(below) > DEEPEST:
            top = (folder, *folder.parents)[len(parts) - _num_known(parts) - 1]
            yield Strange(top, "a folder", "nothing of ours lies so deep as what is in it")
        elif entry.what == "a folder" and (why := _why_closed(entry.path)):
            yield Strange(entry.path, "a folder", why, is_closed=True)
        elif entry.what == "a folder" and below[0] not in OUT_OF_USE:
            yield from _strange_in(entry.path, below)


def _inside(folder: Path) -> list[Entry]:
    try:
        return [one for one in plain_files.listed(folder) if not plain_files.is_deleted_in_use(one.path.name)]
    except FileNotFoundError:  # moved meanwhile, by a run or a garbage collection
        return []


def _why_strange(entry: Entry, parts: tuple[str, ...]) -> str | None:
    if not entry.path.name.isprintable():
        return "no name of ours has such characters"
    wanted = _wanted(parts)
    if entry.what not in ("a file", "a folder"):
        return f"it is {entry.what}" + (f", where {wanted} should be" if wanted else "")
    if wanted and entry.what != wanted:
        return f"it is {entry.what}, where {wanted} should be"
    return None


def _num_known(parts: tuple[str, ...]) -> int:
    """-> how many folders, from runs/ on, are among those that are known."""
    return next((num for num in range(len(parts)) if _wanted(parts[: num + 1]) is None), len(parts))


def _why_closed(folder: Path) -> str | None:
    """-> why nobody can look into a folder, or None."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _wanted(parts: tuple[str, ...]) -> str | None:
    """-> what is to be at a place below runs/; None where that is not known from its name."""
    match parts:
        case ("checks", "models") | ("studies", _, "variants"):
            return "a folder"
        case ("last",) | ("studies", _, _) | ("checks" | "tokens", _):
            return "a file"
        case ("attempts" | "jobs", _, _, name) if name in RECORDS:
            return "a file"
        case (*_, name) if name.endswith(FILES):
            return "a file"
        case (name,) if name in FOLDERS:
            return "a folder"
        case ("stages", name) if re.fullmatch(r"\w+-[0-9a-f]{12}", name):
            return "a folder"
        case ("stages", _, "out") | ("studies" | "jobs", _) | ("attempts", _, _, "checkpoints" | "made"):
            return "a folder"
        case ("jobs", _, _, "inbox"):
            return "a folder"
        case ("attempts", name) if re.fullmatch(r"[0-9a-f]{12}", name):
            return "a folder"
        case ("attempts" | "jobs", _, name) if is_number(name):
            return "a folder"
        case ("attempts", _, _, "checkpoints", name) if name.startswith("step-"):
            return "a folder"
    return None


# what is done with it


def _is_opened(folder: Path) -> bool:
    """Lets its owner in. -> whether that helped."""
    with contextlib.suppress(OSError):
        disk.let_owner_in(folder)
    return _why_closed(folder) is None


def _moved_aside(store: Store, path: Path) -> Path:
    if path != store.aside:
        return store.move_aside(path)
    passing = disk.move_aside(path, store.runs)  # it cannot be moved into itself
    return store.move_aside(passing)


def _why_no_root(runs: Path) -> str | None:
    """-> what is wrong with runs/; None where there is nothing, or a folder that another run has made meanwhile."""
    match what := plain_files.what_is(runs):
        case None | "a folder":
            return None
        case "a link" if plain_files.what_is(runs, follows=True) == "a folder":
            return None
        case "a link":
            return f"it is a link to {os.readlink(runs)}, where no folder is"  # noqa: PTH115 (as it is written)
    return f"it is {what}, where a folder should be"


def _mend_root(runs: Path) -> list[str]:
    """A link to a place where a folder can be made is followed: that is how runs/ comes to another disk."""
    if _why_no_root(runs) is None:
        return []
    if plain_files.what_is(runs) == "a link" and _is_missing(runs):
        _make_target(runs)
        return []
    why = _why_no_root(runs)
    if why is None:  # another run was first
        return []
    moved = disk.move_aside(runs, runs.parent)
    return [f"{runs}: {why}; set aside as {moved.name}"]


def _is_missing(link: Path) -> bool:
    """Whether nothing is where a link leads; one that leads to itself leads nowhere."""
    try:
        os.stat(link)  # noqa: PTH116 (Path.exists hides why)
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _make_target(link: Path) -> None:
    target = Path(os.path.realpath(link))
    if not target.parent.is_dir():
        raise AblateError(
            f"{link} is a link to {target}, and {target.parent} is not there: mount its disk, or remove the link to"
            " begin anew here"
        )
    disk.make_folder(target)


def place_below(root: Path, path: Path) -> str:
    """-> where something lies, on one line, whatever bytes its name has."""
    return plain_files.shown(path.relative_to(root) if path.is_relative_to(root) else path)
