"""Which rows `results` prints, and in which order: what its options choose of a study's."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, TypeVar

from ablate.core.errors import AblateError, did_you_mean
from ablate.report.metric_names import TASKS, metric_name
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.row_records import RowRecord, row_records

STATES: Final = ("done", "running", "failed", "damaged", "diverged", "blocked", "waiting")

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What the options say; nothing of one: no matter."""

    ablations: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    sort: str | None = None
    best: int | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether rows of all ablations stand in one list."""
        return self.sort is not None or self.best is not None

    @property
    def has_metrics(self) -> bool:
        return bool(self.metrics or self.tasks)

    def is_in_state(self, states: Iterable[str]) -> bool:
        return not self.states or any(_fits(state, one) for state in states for one in self.states)


@dataclass(frozen=True)
class Choice:
    """What the options choose of one study."""

    results: Results
    wanted: Wanted
    rows: frozenset[tuple[str, str]]
    """Ablation and name of each."""
    metrics: frozenset[Metric]

    def printed(self) -> list[RowRecord]:
        """-> a record for each row and metric: the primary one alone, unless others are chosen."""
        records = [record for ablation in self.results.ablations for record in self._records(ablation)]
        if not self.wanted.is_ordered:
            return records
        ordered = sorted(records, key=lambda record: _place(record, self.wanted.sort or "score"))
        return ordered if self.wanted.best is None else list(_first(ordered, self.wanted.best))

    def complete(self) -> list[RowRecord]:
        """-> the same rows in the same order, by every metric unless some are chosen."""
        ranks = self.ranks()
        records = [
            record for ablation in self.results.ablations for record in self._records(ablation, is_complete=True)
        ]
        records = [record for record in records if (record.ablation, record.row) in ranks]
        return sorted(records, key=lambda record: ranks[record.ablation, record.row])

    def ranks(self) -> dict[tuple[str, str], int]:
        """-> the place of each row that is printed."""
        names = dict.fromkeys((record.ablation, record.row) for record in self.printed())
        return {name: rank for rank, name in enumerate(names)}

    def _records(self, ablation: AblationResult, *, is_complete: bool = False) -> Iterator[RowRecord]:
        metrics = [metric for metric in ablation.metrics if metric in self.metrics]
        if not (is_complete or self.wanted.has_metrics):
            metrics = [metric for metric in metrics if metric == ablation.primary]
        for record in row_records(self.results, ablation, metrics) if metrics or not self.wanted.has_metrics else ():
            if (record.ablation, record.row) in self.rows and self.wanted.is_in_state(record.states):
                yield record


def choose(results: Results, wanted: Wanted) -> Choice:
    """-> what is wanted. Raises AblateError for a name that chooses nothing of the study, with those that would."""
    study = results.study.name
    if wanted.sort is not None and wanted.sort not in SORTS:
        raise AblateError(f"--sort {wanted.sort}: rows have no such order.{did_you_mean(wanted.sort, SORTS)}")
    _matching("--state {} is no state of a cell", wanted.states, {state: (state,) for state in STATES})
    ablations = {ablation.name: (ablation.name,) for ablation in results.ablations}
    chosen = _matching(f"--ablation {{}} is no ablation of study {study!r}", wanted.ablations, ablations)
    row_names = {
        (ablation.name, row.row.name): (row.row.name, f"{ablation.name}/{row.row.name}")
        for ablation in results.ablations
        for row in (ablation.rows if ablation.name in chosen else ())
    }
    rows = _matching(f"--row {{}} is no row of study {study!r}", wanted.rows, row_names)
    metrics = dict.fromkeys(metric for ablation in results.ablations for metric in ablation.metrics)
    names = {metric: (str(metric), metric.name, metric_name(metric, metrics)) for metric in metrics}
    tasks = {metric: (metric.task, TASKS.get(metric.task, metric.task)) for metric in metrics}
    of_metrics = _matching(f"--metric {{}} is no metric of study {study!r}", wanted.metrics, names)
    of_tasks = _matching(f"--task {{}} is no task of study {study!r}", wanted.tasks, tasks)
    return Choice(results, wanted, rows, of_metrics & of_tasks)


def _matching(refusal: str, patterns: Sequence[str], possible: Mapping[T, Sequence[str]]) -> frozenset[T]:
    """-> the things that a pattern brings in by one of their names; all of them without a pattern.

    Raises AblateError for a pattern that brings in nothing, with the first name of each thing.
    """
    chosen = set() if patterns else set(possible)
    for pattern in patterns:
        matched = {one for one, names in possible.items() if any(_fits(name, pattern) for name in names)}
        if not matched:
            raise AblateError(
                f"{refusal.format(pattern)}.{did_you_mean(pattern, {names[0] for names in possible.values()})}"
            )
        chosen |= matched
    return frozenset(chosen)


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _better_first(record: RowRecord, value: float | None) -> float | None:
    return value if value is None or record.lower_is_better else -value


SORTS: Mapping[str, Callable[[RowRecord], float | None]] = MappingProxyType({
    "score": lambda record: _better_first(record, record.score),
    "difference": lambda record: _better_first(record, record.difference),
    "gap": lambda record: None if record.gap is None else -record.gap,
    "cost": lambda record: record.seconds,
    "name": lambda _: 0.0,
})  # fmt: skip
"""--sort -> a number, the smallest first; a row that has none comes last."""


def _place(record: RowRecord, sort: str) -> tuple[Any, ...]:
    value = SORTS[sort](record)
    number = math.inf if value is None or math.isnan(value) else value
    names = (record.ablation, record.row) if sort == "name" else ()
    return not record.is_primary, record.task, record.metric, number, names


def _first(ordered: Iterable[RowRecord], num: int) -> Iterator[RowRecord]:
    """-> of each metric the first rows of students that have a score, each model once."""
    seen: dict[Metric, set[tuple[str, ...]]] = {}
    for record in ordered:
        models = seen.setdefault(Metric(record.task, record.metric), set())
        is_scored = record.score is not None and not math.isnan(record.score)
        if is_scored and record.is_student and record.keys not in models and len(models) < num:
            models.add(record.keys)
            yield record
