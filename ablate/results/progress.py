"""How far a study's unfinished cells are: what is at work for each of them, at which step, and where it could go on."""

from collections.abc import Iterator
from typing import NamedTuple

from ablate.results.collect import CellResult, Results
from ablate.results.stage_progress import StageProgress, stage_progress
from ablate.store.stage import Stage


class CellProgress(NamedTuple):
    """One unfinished cell."""

    cell: CellResult
    state: str
    """As its row shows it."""
    at: StageProgress
    """What is at work for it; else what was begun for it last; else its evaluation."""


def progress_of(results: Results) -> tuple[CellProgress, ...]:
    """-> one of every cell that has no scores yet and whose training did not diverge, in the order of the tables."""
    unfinished = (cell for cell in results.cells if cell.state not in ("done", "diverged"))
    return tuple(CellProgress(cell, cell.state, _at(cell, results)) for cell in unfinished)


def begun(results: Results) -> dict[str, tuple[StageProgress, list[CellResult]]]:
    """-> key of each stage that runs, or was begun and has no result -> how far it is, and the cells that need it."""
    stages: dict[str, tuple[StageProgress, list[CellResult]]] = {}
    for cell in results.cells:
        for at in _unfinished_stages(cell, results):
            if at.is_begun:
                stages.setdefault(at.stage.key, (at, []))[1].append(cell)
    return stages


def _at(cell: CellResult, results: Results) -> StageProgress:
    stages = list(_unfinished_stages(cell, results))
    running = [stage for stage in stages if stage.state == "running"]
    is_begun = [stage for stage in stages if stage.is_begun]
    return (running or is_begun or stages or [StageProgress(cell.cell.evaluate, cell.state)])[-1]


def _unfinished_stages(cell: CellResult, results: Results) -> Iterator[StageProgress]:
    """-> each once, after what it needs."""
    for stage in {stage.key: stage for stage in cell.cell.evaluate.walk()}.values():
        if results.word_of(stage) not in ("done", "diverged"):
            yield _read(stage, results)


def _read(stage: Stage, results: Results) -> StageProgress:
    known: dict[str, StageProgress] = results.memo.setdefault("progress of stages", {})
    if stage.key not in known:
        known[stage.key] = stage_progress(stage, results.state_of[stage.key], results.plan.store)
    return known[stage.key]
