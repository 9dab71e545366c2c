"""Every look at an attempt's worker, and every word to it: asked of the executor that the attempt was submitted to."""

from pathlib import Path

from ablate.core.processes import Contact
from ablate.execution.executors.base import EXECUTORS, LOCAL, Executor, supervisor_of
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt


class Workers:
    """The workers of all attempts, whoever placed them: a driver's own executor, or others, made to be asked alone."""

    def __init__(self, own: Executor | None = None) -> None:
        self._executors: dict[str, Executor | None] = {own.name: own} if own else {}
        """By name; None: not installed here."""
        self._names: dict[Path, str] = {}

    def poll(self, attempt: Attempt) -> Contact:
        executor = self._executor_of(attempt)
        return executor.poll(attempt) if executor else "unknown"

    def end(self, attempt: Attempt) -> None:
        """See `Executor.end`. Does nothing where the executor is missing here."""
        executor = self._executor_of(attempt)
        if executor:
            executor.end(attempt)

    def describe(self, attempt: Attempt) -> str:
        executor = self._executor_of(attempt)
        return executor.describe(attempt) if executor else f"a worker of executor {self._name_of(attempt)!r}"

    def problem(self, attempt: Attempt) -> str | None:
        """-> why nothing can be asked of an attempt's worker in this process, or None."""
        if self._executor_of(attempt):
            return None
        return f"executor {self._name_of(attempt)!r} is not installed here, so its worker cannot be asked or ended"

    def _executor_of(self, attempt: Attempt) -> Executor | None:
        name = self._name_of(attempt)
        if name not in self._executors:
            self._executors[name] = EXECUTORS[name](Placing()) if name in EXECUTORS else None
        return self._executors[name]

    def _name_of(self, attempt: Attempt) -> str:
        if attempt.path not in self._names:
            request = attempt.request
            if request is None:
                return LOCAL  # claimed, and nothing handed out yet
            self._names[attempt.path] = request.get("executor", LOCAL)
        return self._names[attempt.path]


def has_signed(attempt: Attempt) -> bool:
    """Whether a worker has come to an attempt, wherever it runs."""
    return supervisor_of(attempt) is not None


def is_live(attempt: Attempt) -> bool:
    """Whether an attempt without an end has a worker, or may still get one, as far as can be told from here."""
    is_handed_out = attempt.request is not None or has_signed(attempt)
    return is_handed_out and Workers().poll(attempt) != "gone"
