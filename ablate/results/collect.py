"""What a study has found so far: every cell with its state and scores, grouped into the rows of its tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.execution.status import State, states
from ablate.planning.plan import Cell, Plan
from ablate.results.cell_files import number, read_cell
from ablate.results.question_scores import (
    NotComparable,
    Summary,
    check_alike,
    is_mean,
    over_seeds,
    read_question_scores,
)
from ablate.store.stage import Stage
from ablate.study.cells import Row
from ablate.study.schema import Ablation, Study

if TYPE_CHECKING:
    from ablate.results.paired import Aligned, Contrast  # numpy, which a report that is current does without


class Metric(NamedTuple):
    """One column of a table."""

    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.task}/{self.name}"


class Score(NamedTuple):
    """What lm-eval said of one model; value may be NaN, stderr is None where the metric has none."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class CellResult:
    """One row under one seed: its state, and its scores once it is done."""

    cell: Cell
    state: str
    """done, running, failed, damaged, diverged, blocked or waiting."""
    why: str
    """For a reader; empty when done."""
    folder: Path
    """Of the committed evaluation."""
    evaluation: Mapping[str, Any]
    """Its results.json; empty unless done."""
    curve: Path | None
    """metrics.jsonl of the training behind it, as far as it got."""
    changed: tuple[str, ...] = ()
    """What was changed on the way to the result: nothing but its cost depends on it."""
    held_out: Mapping[str, float] = field(default_factory=dict)
    """Losses of the training behind it on rows that were held out, by name, and their number of tokens."""

    @property
    def is_done(self) -> bool:
        return self.state == "done"

    @cached_property
    def scores(self) -> Mapping[Metric, Score]:
        return {
            Metric(name, metric): Score(number(score["value"]), _stderr(score.get("stderr")), task["n"])
            for name, task in self.evaluation.get("tasks", {}).items()
            for metric, score in sorted(_all_metrics(task).items())
        }

    def samples(self, task: str) -> Path:
        """Where its score on every question is kept."""
        return self.folder / "out" / "samples" / f"{task}.jsonl"

    @property
    def sample_files(self) -> list[Path]:
        """Of its tasks that are no groups of others."""
        tasks = self.evaluation.get("tasks", {})
        return [self.samples(name) for name, task in tasks.items() if "members" not in task]


@dataclass(frozen=True)
class RowResult:
    """One row of a table: the same recipe under every seed."""

    row: Row
    cells: tuple[CellResult, ...]

    @cached_property
    def done(self) -> tuple[CellResult, ...]:
        return tuple(cell for cell in self.cells if cell.is_done)

    @property
    def unfinished(self) -> tuple[CellResult, ...]:
        return tuple(cell for cell in self.cells if not cell.is_done)

    @property
    def run(self) -> frozenset[str]:
        """Keys of its cells' evaluations: equal of rows that are the same work, whatever table shows them."""
        return frozenset(cell.cell.evaluate.key for cell in self.cells)

    def score(self, metric: Metric) -> Summary | None:
        """-> mean over the seeds that are done, or None when none is."""
        scores = [cell.scores[metric] for cell in self.done if metric in cell.scores]
        return over_seeds([score.value for score in scores], scores[0].stderr) if scores else None

    @property
    def held_out(self) -> Mapping[int | None, Mapping[str, float]]:
        """Seed -> losses on held-out rows, of the trainings that have them."""
        return {cell.cell.seed: cell.held_out for cell in self.cells if cell.held_out}

    @property
    def is_trained(self) -> bool:
        """Whether another seed could have made another model."""
        return self.cells[0].cell.seed is not None

    @property
    def is_replicate(self) -> bool:
        """Whether it is the control's recipe once more, under other seeds."""
        return self.row.is_replicate

    def difference(self, control: "RowResult", metric: Metric) -> "Contrast":
        """-> the paired difference to a control. Raises NotComparable, saying what differs."""
        from ablate.results.paired import contrast

        return contrast(self.aligned(control, metric), is_trained=(self.is_trained, control.is_trained))

    def aligned(self, control: "RowResult", metric: Metric) -> "Aligned":
        """-> both rows' answers, question by question. Raises NotComparable, saying what differs."""
        if not (self.done and control.done):
            raise NotComparable("not done")
        for one in self.done:
            for other in control.done:
                check_alike(one.evaluation, other.evaluation, metric.task)
        if not (self._is_number(metric) and control._is_number(metric)):
            raise NotComparable("NaN")
        if not (self._is_mean(metric) and control._is_mean(metric)):
            raise NotComparable("no mean over questions")
        return _aligned(self._samples(metric), control._samples(metric), metric.name)

    def _is_number(self, metric: Metric) -> bool:
        score = self.score(metric)
        return score is None or math.isfinite(score.value)

    def _samples(self, metric: Metric) -> tuple[Path, ...]:
        return tuple(cell.samples(metric.task) for cell in self.done)

    def _is_mean(self, metric: Metric) -> bool:
        scored = [(cell.samples(metric.task), cell.scores[metric].value) for cell in self.done if metric in cell.scores]
        return all(is_mean(path, metric.name, value) for path, value in scored)


@dataclass(frozen=True)
class AblationResult:
    """One ablation: its rows in table order, and what was measured."""

    name: str
    spec: Ablation
    rows: tuple[RowResult, ...]
    metrics: tuple[Metric, ...]
    """Of every task and group; the primary one first."""

    @property
    def primary(self) -> Metric | None:
        """The metric that decides: the study's own, else the first; None before anything is measured."""
        return next(iter(self.columns), None)

    @property
    def columns(self) -> tuple[Metric, ...]:
        """Those of a table, lm-eval's own: a group that was asked for stands for its tasks."""
        members = {name for _, task in self._tasks for name in task.get("members", ())}
        hidden = set(self.finer)
        return tuple(metric for metric in self.metrics if metric.task not in members and metric not in hidden)

    @property
    def finer(self) -> tuple[Metric, ...]:
        """Of the right answers' probabilities, beside lm-eval's metrics."""
        finer = {Metric(name, metric) for name, task in self._tasks for metric in task.get("finer", ())}
        own = {Metric(name, metric) for name, task in self._tasks for metric in task["metrics"]}
        return tuple(metric for metric in self.metrics if metric in finer - own)

    @property
    def _tasks(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [pair for cell in self.cells for pair in cell.evaluation.get("tasks", {}).items()]

    @property
    def title(self) -> str:
        return self.spec.title or self.name

    @property
    def cells(self) -> tuple[CellResult, ...]:
        return tuple(cell for row in self.rows for cell in row.cells)

    @property
    def controls(self) -> tuple[RowResult, ...]:
        """What its rows are compared with, each once: several where the ablation goes over pairs."""
        return tuple({id(control): control for row in self.rows if (control := self.control_of(row.row))}.values())

    def control_of(self, row: Row) -> RowResult | None:
        """-> what a row is compared with: of the same pair, where the ablation goes over pairs."""
        controls = [other for other in self.rows if other.row.name == row.control]
        of_the_pair = [other for other in controls if other.row.setting.pair == row.setting.pair]
        return next(iter(of_the_pair or controls), None)


@dataclass(frozen=True)
class Results:
    """A whole study, at whatever point it is."""

    plan: Plan
    state_of: Mapping[str, State]
    """Key of a stage -> how it stands."""
    ablations: tuple[AblationResult, ...]
    prefix: str = ""
    """Of the names of its tables and figures, in a report of several studies."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out of it, so that it is worked out once."""

    @property
    def study(self) -> Study:
        return self.plan.study

    @property
    def cells(self) -> tuple[CellResult, ...]:
        return tuple(cell for ablation in self.ablations for cell in ablation.cells)

    def word_of(self, stage: Stage) -> str:
        """-> how a stage stands; a teacher's cache that nothing needs any more is done."""
        state = self.state_of.get(stage.key)
        return state.word if state else "done"

    def among_others(self) -> "Results":
        """-> the same, for a report of several studies: its tables and figures have the study's name in theirs."""
        prefix = f"{self.study.name}+"  # no name of a study or an ablation has it
        ablations = tuple(replace(ablation, name=f"{prefix}{ablation.name}") for ablation in self.ablations)
        return Results(self.plan, self.state_of, ablations, prefix)


def collect(plan: Plan, state_of: Mapping[str, State] | None = None) -> Results:
    """-> every cell of a plan, done or not, in table order; states are read from disk unless they are given."""
    state_of = states(plan.stages, plan.store) if state_of is None else state_of
    by_row: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in plan.cells:
        place = (cell.row.ablation, cell.row.setting.pair, cell.row.name)
        by_row.setdefault(place, []).append(CellResult(cell, *read_cell(cell, plan.store, state_of)))
    by_ablation: dict[str, list[RowResult]] = {}
    for cells in by_row.values():
        row = cells[0].cell.row
        by_ablation.setdefault(row.ablation, []).append(RowResult(row, tuple(cells)))
    known = sorted({metric for cells in by_row.values() for cell in cells if cell.is_done for metric in cell.scores})
    return Results(plan, state_of, tuple(_ablation(plan.study, *table, known) for table in by_ablation.items()))


def _ablation(study: Study, name: str, rows: list[RowResult], known: list[Metric]) -> AblationResult:
    tasks = dict.fromkeys(task for row in rows for task in row.row.setting.evaluate.task_names)
    tasks |= dict.fromkeys(metric.task for row in rows for cell in row.done for metric in cell.scores)
    metrics = [metric for task in tasks for metric in known if metric.task == task]
    metrics = sorted(metrics, key=lambda metric: str(metric) != study.report.primary)
    return AblationResult(name, study.ablations[name], tuple(rows), tuple(metrics))


@cache
def _aligned(arm: tuple[Path, ...], control: tuple[Path, ...], metric: str) -> "Aligned":
    """Of the per-question scores in committed files, which do not change; one a seed."""
    from ablate.results.paired import align

    both = [[read_question_scores(path, metric) for path in paths] for paths in (arm, control)]
    return align(*both)


def _all_metrics(task: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's, and the finer ones that it has no name for."""
    return {**task.get("finer", {}), **task["metrics"]}


def _stderr(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
