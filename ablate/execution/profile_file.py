"""executors.yaml: the user's profiles, beside a study or in the configuration folder; every mistake in it at once."""

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.core.errors import AblateError, Place, Problem, StudyError, did_you_mean
from ablate.core.value_errors import SLUG, shown
from ablate.core.yaml import Document, read
from ablate.execution.executors.base import EXECUTORS, LOCAL
from ablate.execution.profile_options import Mistake, option_mistakes
from ablate.execution.profiles import HERE, Profile
from ablate.execution.slurm.allocation import default_profile

NAME = "executors.yaml"
SLUG_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def profiles_named(words: Iterable[str], folder: Path) -> tuple[Profile, ...]:
    """-> the profiles that `--executor a100,local` names, in that order.

    Where it names none, this machine, or the nodes of the allocation of Slurm's that this process runs in. `folder` is
    the study's, whose file comes before the one in the user's configuration folder; a name that stands in neither may
    be that of an executor. Raises StudyError with every mistake in a file, AblateError for a name that is unknown.
    """
    names = _names(list(words)) or [default_profile(os.environ)]
    known, paths = {LOCAL: HERE}, [path for path in _places(folder) if path.is_file()]
    for path in paths:
        if missing := set(names) - known.keys():
            known = _profiles(path, missing) | known
    return tuple(known.get(name) or _bare(name, known, folder, paths) for name in names)


def _names(words: Sequence[str]) -> list[str]:
    """-> each once. Raises AblateError for words that name nothing, as an unset variable of a script does."""
    names = list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    if words and not names:
        raise AblateError(
            f"--executor {','.join(words)!r} names nothing: a profile of {NAME} or {_kinds()} is expected"
        )
    return names


def _places(folder: Path) -> Iterator[Path]:
    """-> where executors.yaml may lie, the first to win."""
    yield folder / NAME
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "ablate" / NAME


def _bare(name: str, known: Mapping[str, Profile], folder: Path, paths: Sequence[Path]) -> Profile:
    """-> an executor by its own name, without options."""
    if name in EXECUTORS:
        return Profile(name, name)
    possible = [*known, *EXECUTORS]
    if paths:
        where = f"The profiles are in {' and '.join(map(str, paths))}."
    else:
        places = " or ".join(str(path.absolute()) for path in _places(folder))
        where = f"Profiles are read from {places}: `ablate new --executors` writes one to start from."
    raise AblateError(f"unknown executor {name!r}.{did_you_mean(name, dict.fromkeys(possible))} {where}")


def _profiles(path: Path, names: Collection[str]) -> dict[str, Profile]:
    """-> the profiles of a file, by name; `names`: those that are wanted.

    One that nobody wants may be of an executor that is not installed here. Raises StudyError with every mistake.
    """
    document = read(path)
    if not isinstance(document.data, dict | None):
        place = document.place(()) or Place(str(path), 1, 1)
        raise StudyError(
            [*document.problems, Problem(place, "profiles by name are expected, such as a100: {kind: slurm}")]
        )
    entries = document.data or {}
    wrong = [problem for name in entries for problem in _problems(document, name, is_wanted=name in names)]
    if problems := [*document.problems, *wrong]:
        raise StudyError(sorted(dict.fromkeys(problems), key=lambda problem: problem.place or Place("", 0, 0)))
    return {name: _profile(name, entry) for name, entry in entries.items()}


def _profile(name: str, entry: Mapping[str, Any]) -> Profile:
    return Profile(name, entry["kind"], {key: value for key, value in entry.items() if key != "kind"})


def _problems(document: Document, name: str, *, is_wanted: bool) -> Iterator[Problem]:
    """-> what is wrong with one profile of a file; not what follows from a value that could not be read."""
    if not any(loc[0] == name for loc in document.unread if loc):
        for mistake in _mistakes(name, document.data[name], is_wanted=is_wanted):
            loc = (name, *mistake.loc)
            place = document.key_place(loc) if mistake.is_key else document.place(loc)
            yield Problem(place, f"{name}: {mistake.message}")


def _mistakes(name: str, entry: Any, *, is_wanted: bool) -> Iterator[Mistake]:
    if not re.fullmatch(SLUG_PATTERN, name):
        yield Mistake((), f"this cannot be a name: {SLUG}", is_key=True)
    if not isinstance(entry, dict):
        hint = f": write {{kind: {entry}}}" if isinstance(entry, str) and entry in EXECUTORS else ""
        yield Mistake((), f"a mapping is expected, got {shown(entry)}{hint}")
        return
    kind = entry.get("kind")
    if "kind" not in entry:
        yield Mistake((), f"'kind' is missing: {_kinds()}", is_key=True)
    elif not isinstance(kind, str):
        yield Mistake(("kind",), f"kind: {_kinds()} is expected, got {shown(kind)}")
    elif kind in EXECUTORS:
        yield from option_mistakes(_profile(name, entry))
    elif is_wanted:
        yield Mistake(("kind",), f"kind: unknown executor {kind!r}.{did_you_mean(kind, EXECUTORS)}")
    if name == LOCAL or (name in EXECUTORS and kind != name):
        yield Mistake((), f"{name!r} is an executor: give the profile another name", is_key=True)


def _kinds() -> str:
    return " or ".join(EXECUTORS)
