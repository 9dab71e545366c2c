"""What hosts a detached driver: it starts the command of one, says whether it is there, and ends it. Three calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ablate.core.registry import Registry
from ablate.execution.driver_records import Record
from ablate.execution.pilots.cluster import JobStatus
from ablate.execution.profiles import Profile

EXPENDABLE = "ABLATE_DRIVER_IS_EXPENDABLE"
"""In the environment of a driver that a cluster may end, and that goes on later: it leaves what runs at work."""


@dataclass(frozen=True)
class DriverCommand:
    """A driver to be started."""

    study: str
    words: Sequence[str]
    """`ablate run` of the study, as the user gave it."""
    folder: Path
    """Where it is started, and where the user was."""
    log: Path
    """Takes what it prints, at its end."""
    environment: Mapping[str, str]


class DriverHost(Protocol):
    """The line to one place where drivers run. All calls block, for a minute at most."""

    is_cluster: bool
    """The driver is a job: it has no network, and no token; the cluster may end it, and it goes on later."""
    comes_back: bool
    """One that was told to go is begun again, by itself."""

    def submit_driver(self, command: DriverCommand) -> str:
        """-> the id of the driver that will run. Raises Refused, or Unreachable where that is not known."""

    def is_driver(self, job: str, record: Record) -> bool:
        """Whether a record of who drives is of the driver with that id."""

    def status(self, job: str) -> JobStatus | None:
        """-> what is known of a driver; None: nothing, any more. Raises Unreachable."""

    def exit_code(self, job: str) -> int:
        """-> of a driver that is over; 1 where it is not known."""

    def cancel_driver(self, job: str) -> None:
        """Ends a driver, waiting or running; one that is not there is none to end. Raises Unreachable."""

    def describe(self, job: str) -> str:
        """-> what it is to a user: Slurm job 1234 of profile a100."""


DRIVER_HOSTS: Registry[Callable[[Profile], DriverHost]] = Registry("driver host", "ablate.execution.detached.hosts")
"""By the kind of a profile."""
