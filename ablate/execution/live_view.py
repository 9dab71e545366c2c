"""What a run shows while it runs: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablate.core.failures import without_particulars
from ablate.core.text import duration
from ablate.execution.executors.base import LOCAL
from ablate.execution.outcomes import Outcome
from ablate.execution.scheduler_tasks import Cost, Label
from ablate.execution.whereabouts import ProfileCount, Whereabouts, by_profile, whereabouts
from ablate.planning.timing import Timing
from ablate.store.attempt import Attempt
from ablate.store.progress import progress_of
from ablate.store.stage import Stage

TELL_EVERY_S = 15.0
DRAW_EVERY_S = 0.5
PLACE_S = 3.0
"""Between two looks at where an attempt is."""
MOST_LINES = 12
"""Of stages at work, each time that a plain log tells of them: hundreds may be in flight, and it is kept."""
ROOM = 6
"""Lines of a terminal beside those of what runs."""
STYLES = {"done": "green", "diverged": "magenta", "failed": "red", "stopped": "yellow", "waiting": "yellow"}


class Tally:
    """How much of a run is over, and how long the rest will take: the plan's costs, corrected by what was measured."""

    def __init__(self, cost_s: Cost, num_slots: int, timing: Timing | None = None) -> None:
        self._cost_s, self._num_slots, self._timing = cost_s, max(1, num_slots), timing or Timing()
        self._left: dict[str, tuple[Stage, float]] = {}
        """Key -> stage and planned seconds."""
        self._began: dict[str, float] = {}
        self.num_stages = self.num_over = 0

    def begin(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        self._left = {stage.key: (stage, self._cost_s(stage)) for stage in stages if stage.key not in done}
        self.num_stages, self.num_over = len(stages), len(done)

    def start(self, stage: Stage) -> None:
        self._began[stage.key] = time.monotonic()

    def end(self, stage: Stage, outcome: Outcome) -> float:
        """-> seconds since it began."""
        seconds = time.monotonic() - self._began.pop(stage.key, time.monotonic())
        if outcome.phase == "waiting":
            return seconds
        self.num_over += 1
        self._left.pop(stage.key, None)
        return seconds

    def eta_s(self, running: Mapping[str, Attempt]) -> float | None:
        """Seconds to the end of the run, if no slot idles but for what waits for another stage.

        None before anything was measured.
        """
        if not self._timing.is_known:
            return None
        progresses = ((key, progress_of(attempt)) for key, attempt in running.items())
        shares = {key: progress.share for key, progress in progresses if progress}
        left: dict[str, float] = {}
        chains: dict[str, float] = {}  # seconds until a stage is done, however many slots there are
        for key, (stage, cost_s) in self._left.items():
            left[key] = cost_s * self._timing.ratio(stage.kind) * (1 - shares.get(key, 0.0))
            needs = (needed.key for needed in stage.inputs.values())
            chains[key] = left[key] + max((chains.get(needed, 0.0) for needed in needs), default=0.0)
        return max(sum(left.values()) / self._num_slots, *chains.values(), 0.0)

    def text(self, running: Mapping[str, Attempt], counts: Sequence[ProfileCount] = ()) -> str:
        """-> 3/9 stages; a100: 2 running, 4 queued (Resources); about 2 h left without queues."""
        eta_s, is_waiting = self.eta_s(running), any(count.num_queued for count in counts)
        left = f"about {duration(eta_s)} left{' without queues' if is_waiting else ''}" if eta_s else ""
        places = "; ".join(str(count) for count in counts if count.kind != LOCAL)
        between = "; " if places else ", "
        return between.join(filter(None, [f"{self.num_over}/{self.num_stages} stages", places, left]))


class Places:
    """Where attempts are, looked up now and then: hundreds may be in flight, each in a folder of its own."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[float, Whereabouts | None]] = {}

    def place(self, attempt: Attempt) -> Whereabouts | None:
        known, now = self._known.get(attempt.path), time.monotonic()
        if known is None or now - known[0] > PLACE_S:
            known = self._known[attempt.path] = now, whereabouts(attempt)
        return known[1]

    def at_work(self, attempts: Iterable[Attempt]) -> list[tuple[Attempt, Whereabouts | None]]:
        """-> those that wait in no queue, each with its place."""
        placed = [(attempt, self.place(attempt)) for attempt in attempts]
        return [(attempt, place) for attempt, place in placed if not (place and place.is_queued)]

    def of_all(self, attempts: Iterable[Attempt]) -> list[ProfileCount]:
        """-> how many run and wait in each profile."""
        return by_profile(place for attempt in attempts if (place := self.place(attempt)))


class PlainLog:
    """One line a start, an end, a failure; one about the progress every quarter of a minute."""

    def __init__(self, tally: Tally, label: Label, write: Callable[[str], None] | None = None) -> None:
        self.tally, self._label = tally, label
        self._write = write or (lambda line: print(line, flush=True))
        self._told_at = time.monotonic()
        self.places = Places()
        self._first_failures: dict[tuple[str, str], str] = {}
        """Phase and likeness of what went wrong -> label of the first stage that it was told of in full."""

    def begin(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        self.tally.begin(stages, done)
        if len(done) < len(stages):
            self._say(f"{len(stages) - len(done)} of {len(stages)} stages to do")

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        self.tally.start(stage)
        tries = f", attempt {attempt.number}" if attempt.number > 1 else ""
        self._say(f"{'found at work' if is_found else 'started'}  {self._label(stage)}  ({stage.folder}{tries})")

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        seconds = self.tally.end(stage, outcome)
        label = self._label(stage)
        line = end_line(label, outcome, seconds, self._first_alike(label, outcome))
        self._say(f"{line}  [{self.tally.num_over}/{self.tally.num_stages}]")

    def _first_alike(self, label: str, outcome: Outcome) -> str | None:
        """-> the stage that failed in the same way before, if one did."""
        first = self._first_failures.setdefault((outcome.phase, without_particulars(outcome.message)), label)
        return first if first != label else None

    def tick(self, running: Mapping[str, Attempt]) -> None:
        if time.monotonic() - self._told_at < TELL_EVERY_S or not running:
            return
        self._say(self.tally.text(running, self.places.of_all(running.values())))
        placed = self.places.at_work(running.values())
        for attempt, place in placed[:MOST_LINES]:
            self._say(f"    {_label_of(attempt)}: {progress_of(attempt) or 'starting'}{_elsewhere(place)}")
        if len(placed) > MOST_LINES:
            self._say(f"    and {len(placed) - MOST_LINES} more at work")

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        """Nothing is held."""

    def _say(self, text: str) -> None:
        self._told_at = time.monotonic()
        self._write(f"{datetime.now():%H:%M:%S} {text}")


class LiveTable(PlainLog):
    """The same lines scrolling by, above a table of what runs and a bar for the whole."""

    def __init__(self, tally: Tally, label: Label, console: Console) -> None:
        super().__init__(tally, label, lambda line: console.print(Text(line), soft_wrap=True))
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        self._drawn_at = 0.0

    def tick(self, running: Mapping[str, Attempt]) -> None:
        if time.monotonic() - self._drawn_at > DRAW_EVERY_S:
            self._drawn_at = time.monotonic()
            self._live.update(self._drawn(running), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self, running: Mapping[str, Attempt]) -> RenderableType:
        table = Table("stage", "progress", "left", "where", box=None, pad_edge=False)
        for attempt, place in self.places.at_work(running.values())[: max(3, self._console.height - ROOM)]:
            progress = progress_of(attempt)
            left = duration(progress.eta_s) if progress and progress.eta_s is not None else ""
            table.add_row(Text(_label_of(attempt)), Text(str(progress or "starting")), left, Text(str(place or "")))
        bar = ProgressBar(total=max(1, self.tally.num_stages), completed=self.tally.num_over, width=40)
        return Group(table, bar, Text(self.tally.text(running, self.places.of_all(running.values()))))


def run_listener(cost_s: Cost, label: Label, num_slots: int, timing: Timing) -> PlainLog:
    """-> the live view on a terminal, plain lines elsewhere; to be closed."""
    tally, console = Tally(cost_s, num_slots, timing), Console()
    return LiveTable(tally, label, console) if sys.stdout.isatty() else PlainLog(tally, label)


def _elsewhere(place: Whereabouts | None) -> str:
    """-> where it is, unless that is here."""
    return "" if place is None or place.kind == LOCAL else f", {place}"


def _label_of(attempt: Attempt) -> str:
    return str((attempt.request or {}).get("label", attempt.key12))


def end_line(label: str, outcome: Outcome, seconds: float, first_alike: str | None = None) -> str:
    """-> "done  Fine-tuned teacher  12 min", or what went wrong and what to do, or of which other that was told."""
    if outcome.phase == "done":
        return f"done  {label}  {duration(seconds)}"
    word = "to be tried again" if outcome.phase == "waiting" else outcome.phase
    if outcome.phase == "failed" and first_alike:
        return f"{word}  {label}, like {first_alike}"
    return f"{word}  {label}: {outcome.message}"
