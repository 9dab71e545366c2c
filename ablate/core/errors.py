"""Errors that ablate raises on purpose; the command line prints them without a traceback."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_USERINFO = re.compile(r"(?<=://)[^/\s?#'\"]*@")


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
    """One mistake in a study."""

    place: Place | None
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class StudyError(AblateError):
    """A study that is wrong, with every mistake found in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class HeldError(AblateError):
    """Another live run holds the study."""

    exit_code = 4


class NameTakenError(AblateError):
    """Another study file was run under the name."""


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


class Interrupted(AblateError):
    """Asked to stop; everything so far is kept and the same command goes on from there."""

    exit_code = 75


def without_secrets(text: str) -> str:
    """-> the text with no `user:password@` in any URL."""
    return _USERINFO.sub("", text)


def did_you_mean(given: str, possible: Iterable[str], *, limit: int = 12) -> str:
    """-> " Did you mean 'x'? Possible: a, b, ..." with the nearest name first, or only the possible ones."""
    names = sorted(possible)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f"{hint} Possible: {shown}." if names else hint


def grouped_by_text(pairs: Iterable[tuple[str, str]], *, limit: int = 3) -> list[tuple[str, str]]:
    """(subject, text) pairs -> one pair for each text, its subjects named together: "a, b, c and 7 more"."""
    subjects: dict[str, list[str]] = {}
    for subject, text in pairs:
        subjects.setdefault(text, []).append(subject)
    return [(_listed(list(dict.fromkeys(names)), limit), text) for text, names in subjects.items()]


def _listed(names: Sequence[str], limit: int) -> str:
    more = len(names) - limit
    return ", ".join(names) if more < 2 else f"{', '.join(names[:limit])} and {more} more"
