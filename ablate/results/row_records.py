"""Rows as flat records, one a metric: score, difference to the control, gap recovered, cost; numbers, no words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.question_scores import NotComparable

if TYPE_CHECKING:
    from ablate.results.gap_recovered import Gap  # numpy, which a reader of records does without


class RowRecord(NamedTuple):
    """One row of one table by one metric; None where there is no such number."""

    ablation: str
    row: str
    label: str
    model: str
    """Which model it evaluates: `distill`, `student/finetuned`."""
    pair: str
    is_control: bool
    keys: tuple[str, ...]
    """Of the evaluations of its cells, as results.csv has them: rows with the same are the same models."""
    states: tuple[str, ...]
    """Of its cells, each once: (`done`,) when all is there."""
    seeds: int
    """That are done."""
    task: str
    metric: str
    is_primary: bool
    lower_is_better: bool
    score: float | None = None
    """Mean over the seeds that are done."""
    stderr: float | None = None
    """lm-eval's, over questions; of a single seed."""
    sd: float | None = None
    """Over seeds; of several."""
    difference: float | None = None
    """To the control, question by question."""
    low: float | None = None
    """Of the interval of the difference at the level of its table's family."""
    high: float | None = None
    verdict: str | None = None
    """Of a distilled row."""
    not_comparable: str | None = None
    """Why there is no difference."""
    gap: float | None = None
    """Recovered of that between control and teacher: 1 is the teacher's score."""
    gap_low: float | None = None
    gap_high: float | None = None
    seconds: float | None = None
    """Of device time that the row alone would have cost."""

    marks: tuple[str, ...] = ()
    """What went wrong with it: collapsed, diverged, over-fitted, chance."""

    @property
    def is_student(self) -> bool:
        return not self.model.startswith("teacher/")

    @property
    def is_done(self) -> bool:
        return self.states == ("done",)


NUMBERS = ("score", "stderr", "sd", "difference", "low", "high", "gap", "gap_low", "gap_high", "seconds")


def row_records(results: Results, ablation: AblationResult, metrics: Sequence[Metric]) -> Iterator[RowRecord]:
    """-> rows in table order, of each the metrics in theirs; without metrics one record a row, which has its state."""
    for row in ablation.rows:
        for metric in metrics or [Metric("", "")]:
            yield _record(results, ablation, row, metric)


def read_record(fields: Mapping[str, Any]) -> RowRecord:
    """-> a record that was written to a JSON file. Raises TypeError, ValueError, KeyError for what is none."""
    numbers = {name: None if fields[name] is None else float(fields[name]) for name in NUMBERS}
    texts = {name: tuple(fields[name]) for name in ("keys", "states", "marks")}
    return RowRecord(**{**fields, **texts, **numbers})


def _record(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> RowRecord:
    from ablate.results.row_costs import row_cost

    score, gap, cost = row.score(metric), _gap(results, ablation, row, metric), row_cost(results, row)
    return RowRecord(
        ablation=ablation.name,
        row=row.row.name,
        label=row.row.label,
        model=row.row.model,
        pair=row.row.setting.pair,
        is_control=ablation.control_of(row.row) is row,
        keys=tuple(cell.cell.evaluate.key12 for cell in row.cells),
        states=tuple(dict.fromkeys(cell.state for cell in row.cells)),
        seeds=len(row.done),
        task=metric.task,
        metric=metric.name,
        is_primary=metric == ablation.primary,
        lower_is_better=_sign(row, metric) < 0,
        score=score.value if score else None,
        stderr=score.stderr if score else None,
        sd=score.sd if score else None,
        gap=gap and gap.value,
        gap_low=gap and gap.low,
        gap_high=gap and gap.high,
        seconds=cost and cost.whole_s,
        marks=_marks(results, ablation, row, metric),
        **_difference(results, ablation, row, metric),
    )


def _marks(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> tuple[str, ...]:
    from ablate.results.marks import marks_of

    kinds = (mark.kind for mark in marks_of(results, ablation) if mark.row is row and mark.metric in (None, metric))
    return tuple(dict.fromkeys(kinds))


def _sign(row: RowResult, metric: Metric) -> int:
    from ablate.results.verdicts import sign_of

    return sign_of(row, metric) if row.done else 1


def _gap(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> "Gap | None":
    """-> None where it is refused, too."""
    from ablate.results.gap_recovered import gap_of

    gap = gap_of(results, ablation, row, metric) if row.done else None
    return None if gap is None or math.isnan(gap.value) else gap


def _difference(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> dict[str, Any]:
    """Its interval has the family's level, for rows outside the family too, as for a replicate.

    A metric that is no column of the table is in no family: no interval.
    """
    from ablate.results.multiple_comparisons import adjusted_interval
    from ablate.results.verdicts import findings_of

    control = ablation.control_of(row.row)
    if control is None or control is row or not (row.done and control.done):
        return {}
    findings = findings_of(results, ablation)
    finding = findings.find(row, metric)
    try:
        contrast = row.difference(control, metric)
    except NotComparable as reason:
        return {"not_comparable": str(reason), "verdict": finding and finding.verdict}
    if metric not in ablation.columns:
        return {"difference": contrast.value}
    level = findings.family.level_with_control(metric)
    low, high = (finding.low, finding.high) if finding else adjusted_interval(contrast, level)
    return {"difference": contrast.value, "low": low, "high": high, "verdict": finding and finding.verdict}
