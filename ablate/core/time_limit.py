"""A limit on the computing that one call may take, for what a user's patterns and templates may never end."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from ablate.core.errors import AblateError

T = TypeVar("T")

LIMIT_S: Final = 10.0
"""Of processor time, so that a busy machine changes nothing: a pattern takes a thousandth of it on a long answer."""


class TooLong(AblateError):
    """Something was ended that had computed for longer than it may."""


class Watch:
    """Ends a call that is still the same after two looks, `seconds` of computing apart; a call costs it nothing more.

    Heeded by Python's `re` and by everything written in Python. It works in the main thread; elsewhere nothing ends.
    """

    def __init__(self, seconds: float = LIMIT_S) -> None:
        self.seconds = seconds
        self._what: Callable[[], str] | None = None
        self._number = self._seen = 0

    @contextlib.contextmanager
    def looking(self) -> Iterator["Watch"]:
        """While it lasts, calls are watched."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGVTALRM, self._look)
        signal.siginterrupt(signal.SIGVTALRM, False)
        signal.setitimer(signal.ITIMER_VIRTUAL, self.seconds, self.seconds)
        try:
            yield self
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)

    def call(self, what: Callable[[], str], function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Makes a call, which `what` names. Raises TooLong."""
        if self._what:  # one inside another is the other's
            return function(*arguments, **named)
        self._what, self._number = what, self._number + 1
        try:
            return function(*arguments, **named)
        finally:
            self._what = None

    def _look(self, number: int, frame: object) -> None:
        if self._what is None:
            return
        if self._seen == self._number:
            raise TooLong(f"{self._what()} has not come to an end in {self.seconds:g} s of computing")
        self._seen = self._number
