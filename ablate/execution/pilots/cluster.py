"""What a cluster is to us: it takes pilot jobs, says what it knows of them, and ends them. Three calls, no more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ablate.core.doctor_line import Line
from ablate.core.failures import Ending, ending_of
from ablate.execution.pilots.pilot_job import PilotJob

Phase: TypeAlias = Literal["queued", "running", "over"]


class Unreachable(Exception):
    """The cluster gives no answer, or none that can be read: what was asked may have been done all the same."""


class Refused(Exception):
    """The cluster will have no such job, now or later; the message is the cluster's own."""


class JobStatus(NamedTuple):
    """What a cluster says of one job."""

    phase: Phase
    id: str
    """As the cluster's own commands take it: 1234_7."""
    node: str = ""
    num_restarts: int = 0
    """How often the cluster has begun it anew: what an earlier turn was at is gone."""
    why: str = ""
    """Why it is not running yet, or how it ended, in the cluster's words."""
    is_hopeless: bool = False
    """It waits for what never comes."""
    ending: Ending | None = None
    """How its end counts for what it was at, where the cluster knows; None: a kill as any other."""


class Table(NamedTuple):
    """The jobs that a cluster knows, by token. One that it has forgotten, or never had, is missing."""

    asked_at: float
    """When the question was sent, by time.monotonic(): what was submitted and acknowledged before is in it."""
    jobs: Mapping[str, JobStatus]


class Cluster(Protocol):
    """The line to one cluster, as any process has it. All calls block, for `timeout_s` at most, and start nothing.

    A stranger's cluster is made of this alone; the rest (which job gets which attempt, what is looked up before it is
    submitted again, who adopts what) is `ablate.execution.pilots.executor`.
    """

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        """Has pilots started, in one call for all: `python -m ablate.execution.pilots.pilot FOLDER` for each.

        Jobs come with consecutive numbers of one study. Raises Unreachable when it is not known whether they were
        taken (their tokens will be looked up before they are submitted again), Refused when they were not.
        """

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        """One question for all. `jobs`: those that are asked about; more may be told. Raises Unreachable."""

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        """Ends jobs, waiting or running, with all that they started; one that is not there is none to end.

        Raises Unreachable.
        """


class CheckedCluster(Cluster, Protocol):
    """One that `ablate doctor --executor` asks for more than a stage of its own; see `CheckedExecutor`."""

    def check(self) -> Iterable[Line]:
        """-> its commands and versions, whether it answers, whether what the options name exists. Starts nothing.

        Raises Unreachable.
        """


class GuardedCluster:
    """A cluster whose calls raise nothing but what `Cluster` says, whatever a stranger's code does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        """Refused, too, for an error that will be the same next time: a bug, or a command that is not here."""
        try:
            self._cluster.submit(jobs)
        except (Unreachable, Refused):
            raise
        except Exception as error:  # code of others: whatever it does, the run goes on, or says why not
            is_passing = isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
            raise (Unreachable if is_passing else Refused)(ending_of(error).message) from error

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        try:
            return self._cluster.table(jobs)
        except Unreachable:
            raise
        except Exception as error:  # the same: no answer is no word about any job
            raise Unreachable(_words(error)) from error

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        try:
            self._cluster.cancel(jobs)
        except Unreachable:
            raise
        except Exception as error:  # the same
            raise Unreachable(_words(error)) from error


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else ending_of(error).message
