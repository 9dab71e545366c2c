"""What all rounds of a run share: store, executor, listener, options, and what came of the rounds before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ablate.core.failures import Ending
from ablate.core.processes import Identity
from ablate.execution.fleet import Fleet
from ablate.execution.outcomes import Outcome
from ablate.execution.scheduler_tasks import Label
from ablate.execution.workers import Workers
from ablate.planning.timing import Timing
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store


@dataclass(frozen=True)
class Options:
    """How a run answers failures, and its patience."""

    is_keep_going: bool = False
    """However often the same failure comes."""
    is_fail_fast: bool = False
    """The first failure stops the rest."""
    stall_s: float = 1800.0
    """A stage that shows no step and prints no line for so long is killed and tried again."""
    grace_s: float = 30.0
    """For a stage to save a checkpoint once it is asked to stop."""
    is_expendable: bool = False
    """A driver that is a cluster's job: where the cluster ends it, it goes at once and leaves what runs at work."""
    poll_s: float = 0.02
    """Between two looks at what runs: a slot is idle for half of it after each stage."""


class RunListener(Protocol):
    """Hears how the run goes; see `ablate.execution.live_view`."""

    def begin(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        """`stages`: each after its inputs; `done`: keys of those that are there already."""

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        """An attempt has begun, or one of another driver was found at work."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """An attempt is over; a stage that waits again will be tried again."""

    def tick(self, running: Mapping[str, Attempt]) -> None:
        """Some time has passed."""

    def note(self, text: str) -> None:
        """Something else a reader should know."""


@dataclass(frozen=True)
class RunContext:
    """One driver of one study, from the moment that it holds the study."""

    store: Store
    study: str
    fleet: Fleet
    listener: RunListener
    options: Options
    me: Identity
    """The driver's process."""
    label: Label
    timing: Timing
    workers: Workers
    """Of this fleet, and of the executors that other drivers of the study's stages use."""
    signals: list[int] = field(default_factory=list)
    """Caught so far: the first asks for an orderly end, the second for a quick one."""
    left: list[str] = field(default_factory=list)
    """Why this driver has gone, and left what runs to another; empty while it drives."""
    failed: dict[str, Ending] = field(default_factory=dict)
    """By key of the stage; failed in an earlier round: the next command tries it again, not this one."""
    lost: set[Path] = field(default_factory=set)
    """Attempts that are not waited for any more: should they come to an end all the same, the first result counts."""
