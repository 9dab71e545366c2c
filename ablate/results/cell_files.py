"""What lies on disk of one cell: its state, its evaluation, and what is known of the training behind it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ablate.execution.status import State
from ablate.planning.plan import Cell
from ablate.results.stage_progress import stage_progress, with_progress
from ablate.store.manifest import read_sound, sound
from ablate.store.stage import Stage
from ablate.store.store import Store

AT_WORK = ("running", "waiting")


class CellFiles(NamedTuple):
    """One row under one seed, as far as it is done; the fields are those of a `CellResult`."""

    state: str
    why: str
    folder: Path
    evaluation: Mapping[str, Any]
    curve: Path | None
    changed: tuple[str, ...]
    held_out: Mapping[str, float]


def read_cell(cell: Cell, store: Store, state_of: Mapping[str, State]) -> CellFiles:
    """-> what there is; a result that is not what was committed is damaged."""
    state, why = _state(cell, store, state_of)
    folder = store.folder(cell.evaluate)
    evaluation: dict[str, Any] = {}
    if state == "done":
        evaluation = read_sound(folder, "out/results.json")
        state, why = _state_of_results(folder, evaluation)
    curve, changed, held_out = _curve(cell.trained, store), _changed(cell, store), _held_out(cell, store)
    return CellFiles(state, why, folder, evaluation, curve, changed, held_out)


def _held_out(cell: Cell, store: Store) -> dict[str, float]:
    losses = read_sound(store.folder(cell.trained), "out/holdout.json") if cell.trained else {}
    return {name: number(value) for name, value in losses.items()}


def _changed(cell: Cell, store: Store) -> tuple[str, ...]:
    record = read_sound(store.folder(cell.trained), "stage.json") if cell.trained else {}
    notes = record["provenance"].get("notes", {}) if record else {}
    return tuple(f"out of memory at {where}" for where in notes.get("out of memory", ()))


def _state(cell: Cell, store: Store, state_of: Mapping[str, State]) -> tuple[str, str]:
    """The evaluation's; of a training that diverged, or that it waits for, that one's: the row's news."""
    state = state_of[cell.evaluate.key]
    trained = state_of[cell.trained.key] if cell.trained else state
    is_waited_for = state.word == "waiting" and trained.word in ("running", "waiting")
    is_in_the_way = trained.word in ("failed", "damaged") and state.word != "done"
    is_news = trained.word == "diverged" or is_in_the_way or is_waited_for
    stage, shown = (cell.trained, trained) if cell.trained and is_news else (cell.evaluate, state)
    why = shown.why or shown.progress
    return shown.word, with_progress(why, stage_progress(stage, shown, store)) if shown.word in AT_WORK else why


def _state_of_results(folder: Path, evaluation: Mapping[str, Any]) -> tuple[str, str]:
    if "diverged" in evaluation:
        return "diverged", "the model's training diverged"
    if "tasks" not in evaluation:
        return "damaged", f"{folder.name}/out/results.json is not what was committed; `ablate run` makes it again"
    return "done", ""


def _curve(trained: Stage | None, store: Store) -> Path | None:
    """The committed curve, else the latest attempt's."""
    if trained is None:
        return None
    if store.folder(trained).is_dir():
        return sound(store.folder(trained), "metrics.jsonl")
    places = (attempt.metrics for attempt in reversed(store.attempts(trained.key12)))
    return next((path for path in places if path.is_file()), None)


def number(value: Any) -> float:
    """-> a number of a JSON file, which has no NaN of its own: it may be the string, or null."""
    return math.nan if value is None else float(value)
