"""Every look at an attempt's worker, and every word to it: asked of the executor that the attempt was submitted to."""

from pathlib import Path

from ablate.core.failures import Ending
from ablate.core.processes import Contact
from ablate.execution.executors.base import EXECUTORS, LOCAL, Executor, supervisor_of
from ablate.execution.executors.local import Local
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt


class Workers:
    """The workers of all attempts, whoever placed them: a driver's own executor, or others, made to be asked alone."""

    def __init__(self, own: Executor | None = None) -> None:
        self._executors: dict[str, Executor | None] = {own.name: own} if own else {}
        """By name; None: of no use here."""
        self._problems: dict[str, str] = {}
        """Why, by name of such an executor."""
        self._names: dict[Path, str] = {}

    def poll(self, attempt: Attempt) -> Contact:
        executor = self._executor_of(attempt)
        return executor.poll(attempt) if executor else "unknown"

    def is_live(self, attempt: Attempt) -> bool:
        """Whether an attempt without an end has a worker, or may still get one, as far as can be told from here."""
        is_handed_out = attempt.request is not None or has_signed(attempt)
        return is_handed_out and self.poll(attempt) != "gone"

    def end(self, attempt: Attempt) -> None:
        """See `Executor.end`. Does nothing where the executor is of no use here."""
        executor = self._executor_of(attempt)
        if executor:
            executor.end(attempt)

    def ending(self, attempt: Attempt) -> Ending | None:
        """See `Executor.ending`."""
        executor = self._executor_of(attempt)
        return executor.ending(attempt) if executor else None

    def describe(self, attempt: Attempt) -> str:
        executor = self._executor_of(attempt)
        return executor.describe(attempt) if executor else f"a worker of executor {self._name_of(attempt)!r}"

    def problem(self, attempt: Attempt) -> str | None:
        """-> why nothing can be asked of an attempt's worker in this process, or None."""
        if self._executor_of(attempt):
            return None
        name = self._name_of(attempt)
        return f"executor {name!r} {self._problems[name]}, so its worker cannot be asked or ended"

    def is_local(self, attempt: Attempt) -> bool:
        """Whether it is the executor of this machine that an attempt was submitted to."""
        return self._name_of(attempt) == LOCAL

    def _executor_of(self, attempt: Attempt) -> Executor | None:
        name = self._name_of(attempt)
        if name not in self._executors:
            self._executors[name] = self._new_executor(name)
        return self._executors[name]

    def _new_executor(self, name: str) -> Executor | None:
        if name == LOCAL:  # ours: what other packages offer need not be loaded for it
            return Local(Placing())
        if name not in EXECUTORS:
            self._problems[name] = "is not installed here"
            return None
        try:
            return EXECUTORS[name](Placing())
        except Exception as error:  # code of others: whatever it does, the rest is told
            self._problems[name] = f"cannot be used here ({type(error).__name__}: {error})"
            return None

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
