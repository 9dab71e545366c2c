"""How much of the gap between the student alone and its teacher a distilled row has closed."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from ablate.results.aligned_rows import AlignedRows, align_rows
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.fieller import Moments, Task, fieller, moments
from ablate.results.paired import Aligned, contrast, t_quantile
from ablate.results.question_scores import NotComparable
from ablate.results.row_teachers import WeightedRow, student_of, teachers_of_row
from ablate.results.verdicts import sign_of

LEVEL = 0.95
LEAST_TASKS = 2
TEACHER_LESS_CONTROL = np.array([0.0, -1.0, 1.0])


class Gap(NamedTuple):
    """(row - control) / (teacher - control), by one metric or over tasks; the control is the student alone."""

    value: float
    """1: as good as the teacher; NaN where it is refused."""
    low: float = math.nan
    """Of the 95 % interval of this row alone."""
    high: float = math.nan
    why: str = ""
    """Of a refusal: `the teacher is not ahead of the student alone`."""
    teachers: tuple[RowResult, ...] = ()
    """That the row has learnt from; several count by their weights in the distillation."""
    control: RowResult | None = None
    ahead: float = math.nan
    """By how much the teacher is: the gap itself, more than 0 also where lower scores are better."""
    ahead_low: float = math.nan
    """Of its 95 % interval."""
    ahead_high: float = math.nan
    has_seed_noise: bool = False
    """Whether the interval holds the noise of training too; else that of the choice of questions alone."""
    metrics: tuple[Metric, ...] = ()
    """That it is from: one, or one a task."""


def gap_of(results: Results, ablation: AblationResult, row: RowResult, metric: Metric | None) -> Gap | None:
    """-> of a distilled row, by its own teacher; None where there is nothing to ask.

    The interval is Fieller's (`fieller.fieller`), from all three scores of each question; the teacher is one model,
    the same for all seeds, so that its training's noise is not in it. It is refused where the teacher's lead cannot be
    told from none at 95 %: just then the interval would have no end.

    `metric` None: the mean over tasks of (row - control) over that of (teacher - control), by one metric a task: the
    primary one of its task, else the task's first column. Tasks whose scores are no means over questions, go beyond
    0..1, are better when lower or have no per-question scores are left out; of fewer than two there is no mean.
    """
    name = f"gap/{ablation.name}/{row.row.setting.pair}/{row.row.name}/{metric}"
    if name not in results.memo:
        results.memo[name] = _gap(results, ablation, row, metric)
    gap: Gap | None = results.memo[name]
    return gap


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json: of each distilled row, by each metric and over all tasks."""
    for ablation in results.ablations:
        for row, metric, gap in gaps_of(results, ablation):
            yield {"ablation": ablation.name, **_record(row, metric, gap)}


def gaps_of(results: Results, ablation: AblationResult) -> Iterator[tuple[RowResult, Metric | None, Gap]]:
    """-> those of an ablation's rows, by each metric and over tasks."""
    for row in ablation.rows:
        for metric in (*ablation.columns, None):
            if gap := gap_of(results, ablation, row, metric):
                yield row, metric, gap


def _record(row: RowResult, metric: Metric | None, gap: Gap) -> dict[str, Any]:
    return {
        "pair": row.row.setting.pair,
        "row": row.row.name,
        "metric": str(metric) if metric else "all tasks",
        "metrics": [str(one) for one in gap.metrics],
        "teachers": [f"{one.row.ablation}/{one.row.name}" for one in gap.teachers],
        "control": gap.control.row.name if gap.control else None,
        **{name: getattr(gap, name) for name in ("value", "low", "high", "why", "ahead", "ahead_low", "ahead_high")},
        "has_seed_noise": gap.has_seed_noise,
    }


def _gap(results: Results, ablation: AblationResult, row: RowResult, metric: Metric | None) -> Gap | None:
    control = student_of(ablation, row)
    if row.row.model != "distill" or row.is_replicate or not row.done or control is None:
        return None
    if metric is not None and row.score(metric) is None:
        return None
    teachers = teachers_of_row(results, ablation, row)
    if teachers is None:
        return Gap(math.nan, why="its teacher was not evaluated", control=control)
    gap = Gap(math.nan, teachers=tuple(one.row for one in teachers), control=control)
    try:
        metrics = (metric,) if metric else tuple(_one_a_task(ablation, [control, row, *gap.teachers]))
        tasks = [_task(control, row, teachers, one) for one in metrics]
    except NotComparable as reason:
        return gap._replace(why=str(reason))
    if metric is None and len(tasks) < LEAST_TASKS:
        return None
    return _measured(
        gap._replace(metrics=metrics), tasks, sign_of(row, metrics[0]), (row.is_trained, control.is_trained)
    )


def _measured(gap: Gap, tasks: Sequence[Task], sign: int, is_trained: tuple[bool, bool]) -> Gap:
    given = moments(tasks, (*is_trained, False))
    gap = _with_lead(gap, given, sign)
    if not gap.ahead > 0:
        return gap._replace(why="the teacher is not ahead of the student alone")
    ratio = fieller(given, LEVEL)
    if not (gap.ahead_low > 0 and math.isfinite(ratio.low) and math.isfinite(ratio.high)):
        return gap._replace(why="the teacher's lead over the student alone cannot be told from none")
    value, unseen = float(ratio.value), _unseen(tasks, float(ratio.value), gap.ahead)
    low, high = min(float(ratio.low), value - unseen), max(float(ratio.high), value + unseen)
    return gap._replace(value=value, low=low, high=high)


def _with_lead(gap: Gap, given: Moments, sign: int) -> Gap:
    lead = given.contrast(TEACHER_LESS_CONTROL)
    half = t_quantile((1 + LEVEL) / 2, float(lead.df)) * math.sqrt(lead.variance)
    ahead = sign * float(lead.value)
    seen = bool(given.is_counted_A.any())
    return gap._replace(ahead=ahead, ahead_low=ahead - half, ahead_high=ahead + half, has_seed_noise=seen)


def _unseen(tasks: Sequence[Task], value: float, ahead: float) -> float:
    """-> how far the ratio may be from 0 or 1 where the row answers every question as control or teacher does.

    Such 0/1 scores have an error of 0; `Contrast.unseen` says what the questions can exclude.
    """
    other = next((arm for arm, at in ((1, 0.0), (2, 1.0)) if math.isclose(value, at, abs_tol=1e-12)), None)
    if other is None:
        return 0.0
    contrasts = [contrast(Aligned(task.scores[0], task.scores[other], task.group_N, True)) for task in tasks]
    return sum(one.unseen(LEVEL) for one in contrasts if one.num_differing == 0) / len(tasks) / ahead


def _task(control: RowResult, row: RowResult, teachers: Sequence[WeightedRow], metric: Metric) -> Task:
    """-> the scores of the three arms. Raises NotComparable unless all answered the same questions alike."""
    aligned = align_rows([control, row, *(one.row for one in teachers)], metric)  # the tables have these pairs too
    if aligned.left_out:
        raise NotComparable(_why(aligned))
    control_SN, arm_SN, *taught = aligned.scores
    # a teacher has one seed; all that it adds to a contrast is its score on each question
    teacher_N = sum(one.weight * scores.mean(0) for one, scores in zip(teachers, taught, strict=True))
    return Task((arm_SN, control_SN, np.atleast_2d(teacher_N)), aligned.group_N)


def _why(aligned: AlignedRows) -> str:
    row, reason = aligned.left_out[0]
    is_of_all = not aligned.rows
    return reason if is_of_all else f"{row.row.label}: {reason}"


def _one_a_task(ablation: AblationResult, rows: Sequence[RowResult]) -> Iterator[Metric]:
    """-> the primary metric of its task, the first column of every other; of tasks whose scores are alike."""
    first: dict[str, Metric] = {}
    for metric in ablation.columns:
        first.setdefault(metric.task, metric)
    for metric in first.values():
        with suppress(NotComparable):
            if all(row.score(metric) for row in rows) and _is_share(rows, metric):
                yield metric


def _is_share(rows: Sequence[RowResult], metric: Metric) -> bool:
    """Whether scores are means of 0..1, where more is better. Raises NotComparable where none is kept a question."""
    scores = align_rows(rows, metric).scores
    is_share = all(one.size and one.min() >= 0 and one.max() <= 1 for one in scores)
    return len(scores) == len(rows) and is_share and sign_of(rows[0], metric) > 0
