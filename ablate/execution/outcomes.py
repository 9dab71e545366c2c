"""Where every stage of a run stands, and the exit code that follows."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

Phase: TypeAlias = Literal["waiting", "running", "done", "diverged", "failed", "blocked", "stopped"]


class Outcome(NamedTuple):
    """Where a stage stands."""

    phase: Phase
    failure: str = "ok"
    """Class of the last failure; see `ablate.core.failures`."""
    message: str = ""

    @property
    def is_over(self) -> bool:
        """It stays so for the rest of the run."""
        return self.phase not in ("waiting", "running")


class OutcomeTable:
    """The outcomes by key; all wait at first."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.outcomes = {key: Outcome("waiting") for key in keys}
        self._running: dict[str, None] = {}
        self.num_waiting = len(keys)
        """Stages that wait."""

    def phase(self, key: str) -> Phase:
        return self.outcomes[key].phase

    def put(self, key: str, outcome: Outcome) -> bool:
        """-> whether the stage has come to its end by that."""
        before, self.outcomes[key] = self.outcomes[key], outcome
        self.num_waiting += (outcome.phase == "waiting") - (before.phase == "waiting")
        if outcome.phase == "running":
            self._running[key] = None
        else:
            self._running.pop(key, None)
        return outcome.is_over and not before.is_over

    @property
    def running(self) -> list[str]:
        return list(self._running)

    @property
    def has_waiting(self) -> bool:
        return self.num_waiting > 0


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 all done or diverged, 1 something failed, 75 something was stopped and goes on with the same command."""
    phases = {outcome.phase for outcome in outcomes}
    if phases & {"failed", "blocked"}:
        return 1
    return 75 if phases & {"stopped", "waiting", "running"} else 0
