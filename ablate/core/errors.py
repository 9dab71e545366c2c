"""Errors that ablate raises on purpose; the command line prints them without a traceback."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ablate.core import secrets

MAX_PLACES = 6
"""Of one mistake that are told."""


class AblateError(Exception):
    """Base of every error a user is meant to read: what was given, what was possible, where, what to do."""

    exit_code = 2


class Place(NamedTuple):
    """A position in a file; line and column count from 1. Line 0: `file` is no file but words of a command."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(NamedTuple):
    """One mistake in a study, or in a file beside it."""

    place: Place | None
    message: str
    num_cells: int = 0
    """That it stops, where that is not all of them."""

    def __str__(self) -> str:
        stops = f" (stops {self.num_cells} cells)" if self.num_cells > 1 else ""
        return f"{self.place}: {self.message}{stops}" if self.place else f"{self.message}{stops}"


class StudyError(AblateError):
    """A study, or a file beside it, that is wrong, with every mistake; one made in several places is told once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        alike: dict[str, list[Problem]] = {}
        for problem in self.problems:
            alike.setdefault(problem.message, []).append(problem)
        super().__init__("\n".join(map(_told_once, alike.values())))


def _told_once(alike: Sequence[Problem]) -> str:
    """Problems with one message -> the first, and where else it is."""
    first, *others = alike
    text = str(first._replace(num_cells=sum(problem.num_cells for problem in alike)))
    places = [str(problem.place) for problem in others if problem.place]
    return f"{text}\n    the same in {_listed(places, MAX_PLACES)}" if places else text


class HeldError(AblateError):
    """Another live run holds the study."""

    exit_code = 4


class NameTakenError(AblateError):
    """Another study file was run under the name."""


class NetworkIsOff(OSError):
    """Something in a stage that works offline wanted to reach the network."""


class StageError(AblateError):
    """A stage that cannot succeed as it is; `failure` names its class (see `ablate.core.failures`)."""

    exit_code = 1

    def __init__(self, message: str, failure: str = "error") -> None:
        super().__init__(message)
        self.failure = failure


class Diverged(AblateError):
    """A training whose loss is no longer finite: a result to be shown, not a fault to be retried."""

    exit_code = 1

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"diverged at step {step}: loss is {loss}")
        self.step = step
        self.loss = loss


class RankLost(AblateError):
    """Another process of the same stage has ended: why, it or its end says."""


class Interrupted(AblateError):
    """Asked to stop; everything so far is kept and the same command goes on from there."""

    exit_code = 75


def without_secrets(text: str) -> str:
    """-> the text with no `user:password@` in any URL, and without the tokens and passwords that are known here."""
    return secrets.hidden(text)


def did_you_mean(given: str, possible: Iterable[str], *, limit: int = 16) -> str:
    """-> " Did you mean 'x'? Possible: a, b, ..." with the nearest name first, or only the possible ones."""
    names = sorted(possible)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else ".")
    return f"{hint} Possible: {shown}" if names else hint


def grouped_by_text(
    pairs: Iterable[tuple[str, str]], *, limit: int = 3, likeness: Callable[[str], str] = str
) -> list[tuple[str, str]]:
    """(subject, text) pairs -> one pair for each text, its subjects named together: "a, b, c and 7 more".

    Of texts that are only alike, the first is told, and that it is.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for subject, text in pairs:
        groups.setdefault(likeness(text), {}).setdefault(text, []).append(subject)
    return [_grouped(subjects_of, limit) for subjects_of in groups.values()]


def _grouped(subjects_of: Mapping[str, Sequence[str]], limit: int) -> tuple[str, str]:
    text, *others = subjects_of
    subjects = dict.fromkeys(subject for subjects in subjects_of.values() for subject in subjects)
    of_the_first = " (these are the first one's words; the others' differ in names and numbers)" if others else ""
    return _listed(list(subjects), limit), f"{text}{of_the_first}"


def _listed(names: Sequence[str], limit: int) -> str:
    more = len(names) - limit
    return ", ".join(names) if more < 2 else f"{', '.join(names[:limit])} and {more} more"
