"""What a study has found so far: every cell with its state and scores, grouped into the rows of its tables."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.execution.status import State, states
from ablate.planning.plan import Cell, Plan
from ablate.results.question_scores import NotComparable, Summary, check_alike, over_seeds, read_question_scores
from ablate.store.manifest import read_sound, sound
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import Row
from ablate.study.schema import Ablation, Study

if TYPE_CHECKING:
    import pandas

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


class Record(NamedTuple):
    """One line of results.csv. A cell without scores keeps a line for each it will have."""

    ablation: str
    row: str
    seed: int | None
    task: str
    metric: str
    value: float | None
    stderr: float | None
    n: int | None
    key: str
    state: str


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
            Metric(task, name): Score(_number(of["value"]), _stderr(of.get("stderr")), found["n"])
            for task, found in self.evaluation.get("tasks", {}).items()
            for name, of in sorted(_all_metrics(found).items())
        }

    def samples(self, task: str) -> Path:
        """Where its score on every question is kept."""
        return self.folder / "out" / "samples" / f"{task}.jsonl"


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

    def score(self, metric: Metric) -> Summary | None:
        """-> mean over the seeds that are done, or None when none is."""
        found = [cell.scores[metric] for cell in self.done if metric in cell.scores]
        return over_seeds([score.value for score in found], found[0].stderr) if found else None

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
        return self.row.name.endswith("/replicate")

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
        return _aligned(self._samples(metric), control._samples(metric), metric.name)

    def _is_number(self, metric: Metric) -> bool:
        score = self.score(metric)
        return score is None or math.isfinite(score.value)

    def _samples(self, metric: Metric) -> tuple[Path, ...]:
        return tuple(cell.samples(metric.task) for cell in self.done)


@dataclass(frozen=True)
class AblationResult:
    """One ablation: its rows in table order, and what was measured."""

    name: str
    spec: Ablation
    rows: tuple[RowResult, ...]
    metrics: tuple[Metric, ...]
    """Of every task and group."""

    @property
    def columns(self) -> tuple[Metric, ...]:
        """Those of a table, lm-eval's own: a group that was asked for stands for its tasks."""
        members = {name for _, of in self._tasks for name in of.get("members", ())}
        hidden = set(self.finer)
        return tuple(metric for metric in self.metrics if metric.task not in members and metric not in hidden)

    @property
    def finer(self) -> tuple[Metric, ...]:
        """Of the right answers' probabilities, beside lm-eval's metrics."""
        found = {Metric(task, name) for task, of in self._tasks for name in of.get("finer", ())}
        own = {Metric(task, name) for task, of in self._tasks for name in of["metrics"]}
        return tuple(metric for metric in self.metrics if metric in found - own)

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
        found = [other for other in self.rows if other.row.name == row.control]
        same = [other for other in found if other.row.setting.pair == row.setting.pair]
        return next(iter(same or found), None)


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
        ablations = tuple(replace(of, name=f"{prefix}{of.name}") for of in self.ablations)
        return Results(self.plan, self.state_of, ablations, prefix)

    @property
    def records(self) -> Iterator[Record]:
        for ablation in self.ablations:
            for cell in ablation.cells:
                yield from _records(cell, ablation.metrics)


def collect(plan: Plan, state_of: Mapping[str, State] | None = None) -> Results:
    """-> every cell of a plan, done or not, in table order; states are read from disk unless they are given."""
    state_of = states(plan.stages, plan.store) if state_of is None else state_of
    found: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in plan.cells:
        place = (cell.row.ablation, cell.row.setting.pair, cell.row.name)
        found.setdefault(place, []).append(_cell(cell, plan.store, state_of))
    rows = [RowResult(cells[0].cell.row, tuple(cells)) for cells in found.values()]
    known = sorted({metric for row in rows for cell in row.done for metric in cell.scores})
    tables: dict[str, list[RowResult]] = {}
    for row in rows:
        tables.setdefault(row.row.ablation, []).append(row)
    return Results(plan, state_of, tuple(_ablation(plan.study, name, of, known) for name, of in tables.items()))


def frame(results: Results) -> "pandas.DataFrame":
    """-> the lines of results.csv, numbers as numbers."""
    import pandas

    table = pandas.DataFrame(list(results.records), columns=Record._fields)
    return table.astype({"seed": "Int64", "n": "Int64", "value": "float64", "stderr": "float64"})


def _ablation(study: Study, name: str, rows: list[RowResult], known: list[Metric]) -> AblationResult:
    tasks = dict.fromkeys(task for row in rows for task in row.row.setting.evaluate.tasks)
    tasks |= dict.fromkeys(metric.task for row in rows for cell in row.done for metric in cell.scores)
    metrics = tuple(metric for task in tasks for metric in known if metric.task == task)
    return AblationResult(name, study.ablations[name], tuple(rows), metrics)


def _cell(cell: Cell, store: Store, state_of: Mapping[str, State]) -> CellResult:
    state, why = _state(cell, state_of)
    folder = store.folder(cell.evaluate)
    evaluation: dict[str, Any] = {}
    if state == "done":
        evaluation = read_sound(folder, "out/results.json")
        state, why = _state_of_results(folder, evaluation)
    curve, changed, held_out = _curve(cell.trained, store), _changed(cell, store), _held_out(cell, store)
    return CellResult(cell, state, why, folder, evaluation, curve, changed, held_out)


def _held_out(cell: Cell, store: Store) -> dict[str, float]:
    losses = read_sound(store.folder(cell.trained), "out/holdout.json") if cell.trained else {}
    return {name: _number(value) for name, value in losses.items()}


def _changed(cell: Cell, store: Store) -> tuple[str, ...]:
    record = read_sound(store.folder(cell.trained), "stage.json") if cell.trained else {}
    notes = record["provenance"].get("notes", {}) if record else {}
    return tuple(f"out of memory at {told}" for told in notes.get("out of memory", ()))


def _state(cell: Cell, state_of: Mapping[str, State]) -> tuple[str, str]:
    """The evaluation's; of a training that diverged, or that keeps it from being made, that one's: the row's news."""
    state = state_of[cell.evaluate.key]
    trained = state_of[cell.trained.key] if cell.trained else state
    is_news = trained.word == "diverged" or (trained.word in ("failed", "damaged") and state.word != "done")
    told = trained if is_news else state
    return told.word, told.why or told.progress


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


@cache
def _aligned(arm: tuple[Path, ...], control: tuple[Path, ...], metric: str) -> "Aligned":
    """Of the per-question scores in committed files, which do not change; one a seed."""
    from ablate.results.paired import align

    both = [[read_question_scores(path, metric) for path in paths] for paths in (arm, control)]
    return align(*both)


def _records(cell: CellResult, expected: tuple[Metric, ...]) -> Iterator[Record]:
    for metric in expected:
        score = cell.scores.get(metric)
        if score or not cell.is_done:
            yield _record(cell, *metric, score)
    untold = [task for task in cell.cell.row.setting.evaluate.tasks if task not in {metric.task for metric in expected}]
    for task in untold if not cell.is_done else ():
        yield _record(cell, task)
    if cell.is_done and not cell.scores:
        yield _record(cell)


def _record(cell: CellResult, task: str = "", metric: str = "", score: Score | None = None) -> Record:
    of, row = cell.cell, cell.cell.row
    value, stderr, n = score or (None, None, None)
    return Record(row.ablation, row.name, of.seed, task, metric, value, stderr, n, of.evaluate.key12, cell.state)


def _all_metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's, and the finer ones that it has no name for."""
    return {**found.get("finer", {}), **found["metrics"]}


def _number(value: Any) -> float:
    """JSON has no NaN of its own: it may be the string."""
    return math.nan if value is None else float(value)


def _stderr(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
