"""What a stage's code is handed: its settings, its inputs, a place for its result, and ways to tell how it goes."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.core.errors import Interrupted
from ablate.core.values import Json, spelled
from ablate.store.checkpoints import Checkpoints

LONGEST_LINE = 1 << 20
"""Bytes of a step's record."""


class MetricsLog:
    """metrics.jsonl: one JSON object per optimizer step, each step once, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, **record: Any) -> None:
        """`record` has `step`. NaN and infinity are written as the strings "NaN", "Infinity", "-Infinity"."""
        disk.append(self.path, json.dumps(spelled(record)) + "\n")

    def go_back(self, saved: Path, step: int) -> None:
        """Takes over what a checkpoint has kept, as far as `step`."""
        disk.copy(saved, self.path)
        self.cut_after(step)

    def cut_after(self, step: int) -> None:
        """Drops what was written after `step` (0: everything), so that a resumed run writes each step once."""
        lines = [json.dumps(record) for record in read_metrics(self.path) if record["step"] <= step]
        disk.write(self.path, "".join(line + "\n" for line in lines))


class UnwrittenMetrics(MetricsLog):
    """Of a rank other than the first, which alone writes."""

    def append(self, **record: Any) -> None:
        pass

    def go_back(self, saved: Path, step: int) -> None:
        pass

    def cut_after(self, step: int) -> None:
        pass


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """-> the records of a metrics.jsonl, line by line, a torn last one left out; none where there is no file."""
    try:
        file = plain_files.opened(path)
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(LONGEST_LINE):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(record, dict):
                return
            yield record


@dataclass
class Job:
    """One stage to be worked on, in this process. Everything a kind may touch is here."""

    settings: Any
    """An instance of the kind's `Settings`, runtime fields included."""
    inputs: Mapping[str, Path]
    """Name of the input, or of an aid that is there -> folder of its committed stage (stage.json, out/, ...)."""
    out: Path
    """An empty folder: what is put here is the result."""
    metrics: MetricsLog
    checkpoints: Checkpoints
    device: str = "cpu"
    """cpu or cuda (the one card the worker was given)."""
    device_name: str = ""
    """Model of the card or the processor."""
    checks: Path | None = None
    """A folder shared by all stages: what was found sound of machines like this one. None: nothing is to be checked."""
    tokens: Path | None = None
    """A folder shared by all stages for the tokens of questions; None: they are not kept."""
    progress_path: Path | None = None
    is_stopping: Callable[[], bool] = lambda: False
    """True once the worker was asked to stop: save a checkpoint, then call `stop`."""
    rank: int = 0
    """Of the processes that share this stage, one a card, which this one is (see `ablate.training.ranks`)."""
    num_ranks: int = 1
    meeting: str = ""
    """The file by which they find each other."""
    is_sharded: bool = False
    """Each rank keeps a part of the models' weights alone, which are more than a card holds."""
    grace_s: float = math.inf
    """From the moment that it was asked to stop until it is killed."""
    content: str | None = None
    """Set by a kind that is named by content: digest of what it made."""
    notes: dict[str, Json] = field(default_factory=dict)
    """What happened on the way (counts, halved budgets, warnings): kept in stage.json, never in results.csv."""
    _written_at: float = 0.0
    _begun: tuple[float, int] | None = None
    """When progress was first heard of, and how far it was then."""

    def progress(self, done: int, total: int, unit: str, **more: Json) -> None:
        """Says how far the stage is, for `status` and the live view; cheap to call often."""
        now = time.monotonic()
        since, first = self._begun = self._begun or (now, done)
        if self.progress_path and (done >= total or now - self._written_at > 0.5):
            self._written_at = now
            record = {"done": done, "total": total, "unit": unit, "pace": (done - first) / max(now - since, 1e-9)}
            with contextlib.suppress(OSError):  # a full disk ends a stage where something is lost by it, not here
                disk.write_volatile(self.progress_path, json.dumps(record | more))

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes the result."""
        return self.rank == 0

    @property
    def has_time_to_save(self) -> bool:
        """False once it was asked to stop and the last save took half the grace: the one before counts then."""
        return self.checkpoints.save_s < self.grace_s / 2 or not self.is_stopping()

    def stop_if_asked(self) -> None:
        """Raises Interrupted once the worker was asked to stop; call where nothing would be lost."""
        if self.is_stopping():
            raise Interrupted("stopped on request; the same command goes on from the last checkpoint")
