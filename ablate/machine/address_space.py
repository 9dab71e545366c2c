"""`ulimit -v`: where it holds a process to less than libraries need, they fail in many words, and none names it."""

import re
import resource
import signal
from collections.abc import Iterator
from typing import Final

from ablate.core.failures import Ending
from ablate.core.text import data_size

NEEDED_BYTES: Final = 4 << 30
"""For torch and a small model on a CPU: 3 GB were enough, 1.5 GB were not; a card takes far more."""
_LACK = re.compile(
    r"allocat|MemoryError|bad_alloc|out of memory|failed to map segment"
    r"|start(ing)? (a )?new thread|launch worker thread|Resource temporarily unavailable",
    re.IGNORECASE,
)
_DEATHS: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGTRAP)
"""Of libraries that cannot go on, and say so in the log at most."""


def limit_bytes() -> int | None:
    """-> what `ulimit -v` leaves to each process, None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def explained(ending: Ending, error: BaseException | None = None, death: int | None = None) -> Ending:
    """-> an ending whose cause is the limit, told as such; others, and where there is no limit, as they are.

    `error`: what was raised; `death`: the signal by which the process died.
    """
    limit = limit_bytes()
    if limit is None or ending.failure in ("ok", "diverged", "preempted", "cancelled"):
        return ending
    is_lack = any(_LACK.search(words) for words in (ending.message, *_words(error)))
    if not is_lack and death not in _DEATHS:
        return ending
    may = "" if is_lack else "probably "
    return Ending(
        "limited", f"{may}for want of address space: `ulimit -v` leaves {data_size(limit)} ({ending.message})"
    )


def _words(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
