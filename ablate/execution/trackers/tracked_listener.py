"""What a run tells its listener, told to trackers too: none of them can stop or spoil the run."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.core.values import identity
from ablate.execution.outcomes import Outcome
from ablate.execution.run_context import RunListener
from ablate.execution.trackers.base import TRACKERS, MakeTracker, TrackedAttempt, TrackedRun, Tracker
from ablate.execution.trackers.metrics_tail import MetricsTail
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store

READ_EVERY_S = 1.0
"""Between two looks at how far the metrics have grown."""


@dataclass
class _Followed:
    """An attempt at work."""

    about: TrackedAttempt
    attempt: Attempt
    tail: MetricsTail


class TrackedListener:
    """A listener that has trackers hear what it hears, and of metrics beside."""

    def __init__(
        self,
        listener: RunListener,
        makers: Mapping[str, MakeTracker],
        store: Store,
        study: str,
        label: Callable[[Stage], str],
    ) -> None:
        self._listener, self._store, self._study, self._label = listener, store, study, label
        self._makers = dict(makers)
        """Of trackers that wait for the run to begin: it may be another's, who holds the study."""
        self._trackers: dict[str, Tracker] = {}
        self._followed: dict[str, _Followed] = {}
        self._last_steps: dict[str, int] = {}
        """Key of a stage -> the last step that was told of it."""
        self._read_at = time.monotonic()

    def begin(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        self._listener.begin(stages, done)
        for name, make in self._makers.items():
            with self._guarded(name):
                where = name.partition(":")[2]
                self._trackers[name] = make(TrackedRun(self._study, self._store.study_folder(self._study), where))
        self._makers.clear()

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        self._listener.started(stage, attempt, is_found=is_found)
        name = f"{attempt.key12}/{attempt.number}"
        about = TrackedAttempt(name, stage.folder, stage.kind, self._label(stage), identity(stage.settings))
        self._followed[stage.key] = _Followed(about, attempt, MetricsTail(self._last_steps.get(stage.key, 0)))
        for tracker_name, tracker in self._each():
            with self._guarded(tracker_name):
                tracker.start_attempt(about)

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        self._listener.ended(stage, outcome)
        followed = self._followed.pop(stage.key, None)
        if followed is None:  # done by another run, or never begun
            return
        self._read(followed, followed.attempt.metrics)
        self._read(followed, self._store.folder(stage) / "metrics.jsonl")  # where it lies once it is committed
        self._last_steps[stage.key] = followed.tail.last_step
        for name, tracker in self._each():
            with self._guarded(name):
                tracker.end_attempt(followed.about, outcome.phase, outcome.message)

    def tick(self, running: Mapping[str, Attempt]) -> None:
        self._listener.tick(running)
        if time.monotonic() - self._read_at < READ_EVERY_S:
            return
        self._read_at = time.monotonic()
        for followed in self._followed.values():
            self._read(followed, followed.attempt.metrics)

    def note(self, text: str) -> None:
        self._listener.note(text)

    def close(self) -> None:
        """The run is over."""
        for name, tracker in self._each():
            with self._guarded(name):
                tracker.end_run()

    def _read(self, followed: _Followed, path: Path) -> None:
        """Passes on what metrics are new, where anybody listens."""
        for step, figures in followed.tail.read(path) if self._trackers else ():
            for name, tracker in self._each():
                with self._guarded(name):
                    tracker.log_metrics(followed.about, step, dict(figures))

    def _each(self) -> list[tuple[str, Tracker]]:
        return list(self._trackers.items())

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Leaves a tracker out that raises: it is code of others, and the run goes on whatever it does."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self._trackers.pop(name, None)
            self._listener.note(f"note: the tracker {name} is left out: {type(error).__name__}: {error}")


def makers_of(names: Sequence[str]) -> Mapping[str, MakeTracker]:
    """-> `NAME` or `NAME:WHERE` -> what makes that tracker. Raises UnknownName for one that there is not."""
    return {name: TRACKERS[name.partition(":")[0]] for name in names}
