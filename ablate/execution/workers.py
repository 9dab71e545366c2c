"""Every look at an attempt's worker, and every word to it: asked of the executor that the attempt was submitted to."""

import socket
from pathlib import Path

from ablate.core.errors import StudyError
from ablate.core.failures import Ending
from ablate.core.processes import Contact
from ablate.execution.executors.base import EXECUTORS, LOCAL, Executor, supervisor_of
from ablate.execution.executors.local import Local
from ablate.execution.fleet import Fleet
from ablate.execution.profile_options import require_valid
from ablate.execution.profiles import HERE, Profile, profile_in
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt


class Workers:
    """The workers of all attempts, whoever placed them: a driver's own executors, or others, made to be asked alone.

    Which it is says the attempt's request: its executor, and the profile as it was then.
    """

    def __init__(self, own: Fleet | None = None) -> None:
        places = (*own.former, *own.places) if own else ()
        self._executors: dict[str, Executor | None] = {place.profile.address: place.executor for place in places}
        """By address of the profile; None: of no use here."""
        self._problems: dict[str, str] = {}
        """Why, by address of such a profile."""
        self._profiles: dict[Path, Profile] = {}

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
        return executor.describe(attempt) if executor else f"a worker of executor {self._profile_of(attempt).kind!r}"

    def problem(self, attempt: Attempt) -> str | None:
        """-> why nothing can be asked of an attempt's worker in this process, or None."""
        if self._executor_of(attempt):
            return None
        profile = self._profile_of(attempt)
        why = self._problems[profile.address]
        return f"executor {profile.kind!r} {why}, so its worker cannot be asked or ended"

    def is_local(self, attempt: Attempt) -> bool:
        """Whether it is the executor of this machine that an attempt was submitted to."""
        return self._profile_of(attempt).kind == LOCAL

    def _executor_of(self, attempt: Attempt) -> Executor | None:
        profile = self._profile_of(attempt)
        address = profile.address
        if address not in self._executors:
            self._executors[address] = self._new_executor(profile)
        return self._executors[address]

    def _new_executor(self, profile: Profile) -> Executor | None:
        if profile.kind == LOCAL:  # ours: what other packages offer need not be loaded for it
            return Local(Placing())
        if profile.kind not in EXECUTORS:
            self._problems[profile.address] = "is not installed here"
            return None
        try:
            require_valid(profile)
        except StudyError:  # what it quotes of a profile is no affair of a report's
            self._problems[profile.address] = f"does not take here what profile {profile.name} says"
            return None
        try:
            return EXECUTORS[profile.kind](Placing(profile=profile.name, options=profile.options))
        except Exception as error:  # code of others: whatever it does, the rest is told
            self._problems[profile.address] = f"cannot be used here ({type(error).__name__}: {error})"
            return None

    def _profile_of(self, attempt: Attempt) -> Profile:
        if attempt.path not in self._profiles:
            request = attempt.request
            if request is None:
                return HERE  # claimed, and nothing handed out yet
            self._profiles[attempt.path] = profile_in(request)
        return self._profiles[attempt.path]


def has_signed(attempt: Attempt) -> bool:
    """Whether a worker has come to an attempt, wherever it runs."""
    return supervisor_of(attempt) is not None


def host_of(attempt: Attempt) -> str | None:
    """-> the machine that an attempt's worker has come to; None before."""
    worker = supervisor_of(attempt)
    return worker.host if worker else None


def is_on_another_host(attempt: Attempt) -> bool:
    """Whether an attempt's worker is, or was, of another machine: what it wrote may be seen late here."""
    worker = supervisor_of(attempt)
    return worker is not None and worker.host != socket.gethostname()
