"""What a tracker is: it hears how a run goes, in the driver's process, and takes it elsewhere; and all trackers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ablate.core.registry import Registry


@dataclass(frozen=True)
class TrackedRun:
    """One command that runs a study, or goes on with it."""

    study: str
    folder: Path
    """Of the study's records: runs/studies/<name>."""
    where: str
    """What stands behind the tracker's name on the command line, after a colon; empty unless said."""


@dataclass(frozen=True)
class TrackedAttempt:
    """One try at a stage."""

    name: str
    """`<key>/<number>`, as below runs/attempts: it is no other attempt's."""
    stage: str
    """Folder of its result below runs/stages: tries at one stage have it in common."""
    kind: str
    label: str
    settings: Mapping[str, Any]
    """What decides the result, as in the stage's key."""


class Tracker(Protocol):
    """Made when a run begins. What one raises is told once, and it hears no more: a run goes on without it.

    It is called between two looks at what runs, so it must return at once; one that waits for a network does so in a
    thread of its own. Workers know nothing of it.
    """

    def start_attempt(self, attempt: TrackedAttempt) -> None:
        """An attempt has begun, or one of another driver was found at work."""

    def log_metrics(self, attempt: TrackedAttempt, step: int, figures: Mapping[str, float]) -> None:
        """One record of metrics.jsonl. Steps rise, and none of a stage comes twice in a run, however often it is tried.

        A run that goes on with an earlier one's attempt hears of its steps from the first.
        """

    def end_attempt(self, attempt: TrackedAttempt, phase: str, message: str) -> None:
        """An attempt is over: done, failed, diverged, stopped, or waiting to be tried again; `message` says why."""

    def end_run(self) -> None:
        """Nothing more comes."""


MakeTracker: TypeAlias = Callable[[TrackedRun], Tracker]

TRACKERS: Registry[MakeTracker] = Registry("tracker", "ablate.execution.trackers", "ablate.trackers")
