"""A tracker that needs nothing: one JSON object a line for each event, in a file that only grows."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.values import spelled
from ablate.execution.trackers.base import TRACKERS, TrackedAttempt, TrackedRun


class JsonLines:
    """Appends to tracker.jsonl beside the study's records, or to the file that is named."""

    def __init__(self, run: TrackedRun) -> None:
        self._path = Path(run.where).absolute() if run.where else run.folder / "tracker.jsonl"
        self._append("run_began", study=run.study)

    def start_attempt(self, attempt: TrackedAttempt) -> None:
        about = {"stage": attempt.stage, "kind": attempt.kind, "label": attempt.label, "settings": attempt.settings}
        self._append("attempt_started", attempt=attempt.name, **about)

    def log_metrics(self, attempt: TrackedAttempt, step: int, figures: Mapping[str, float]) -> None:
        self._append("metrics", attempt=attempt.name, step=step, figures=figures)

    def end_attempt(self, attempt: TrackedAttempt, phase: str, message: str) -> None:
        self._append("attempt_ended", attempt=attempt.name, phase=phase, message=message)

    def end_run(self) -> None:
        self._append("run_ended")

    def _append(self, event: str, **record: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        disk.append(self._path, json.dumps(spelled({"event": event, "at": at, **record})) + "\n")


TRACKERS.register("jsonl")(JsonLines)
