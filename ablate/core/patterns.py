"""Regular expressions that a study says: broken ones told, those that never end stopped."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

LIMIT_S = 1
"""Of a processor, whatever else it does; an ordinary pattern takes a few milliseconds for all names of a model."""
MAX_LENGTH = 1000
_CODE = f"""
import json, re, signal, sys
signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGVTALRM])
signal.setitimer(signal.ITIMER_VIRTUAL, {LIMIT_S})
pattern, texts = json.load(sys.stdin)
json.dump([re.fullmatch(pattern, text) is not None for text in texts], sys.stdout)
"""
"""`re` cannot be interrupted from within; a process of its own ends by its own timer, whatever becomes of ours."""


class PatternError(ValueError):
    """A regular expression that cannot be used, and why."""


def require_pattern(pattern: str) -> None:
    """Raises PatternError for what is no regular expression."""
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"a pattern of {len(pattern)} characters; {MAX_LENGTH} are the most")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"{pattern!r} is no regular expression: {error}") from error


def fullmatching(pattern: str, texts: Sequence[str]) -> tuple[str, ...]:
    """-> the texts that a pattern matches from beginning to end.

    Raises PatternError for what is no regular expression, or takes longer than LIMIT_S seconds.
    """
    require_pattern(pattern)
    matches = _matches(pattern, tuple(texts))
    if matches is None:
        raise PatternError(
            f"{pattern!r} is not done with {len(texts)} names after {LIMIT_S} s: a repeat within a repeat, as in "
            "(a*)*, tries every way to cut a name; say it without"
        )
    return matches


@cache
def _matches(pattern: str, texts: tuple[str, ...]) -> tuple[str, ...] | None:
    """-> None where it took too long."""
    command = [sys.executable, "-I", "-S", "-c", _CODE]
    process = subprocess.run(command, input=json.dumps([pattern, texts]), capture_output=True, text=True, check=False)
    if process.returncode == -signal.SIGVTALRM:
        return None
    process.check_returncode()
    return tuple(text for text, is_match in zip(texts, json.loads(process.stdout), strict=True) if is_match)
