"""Which rows are looked at question by question: all of a small study, of a large one those that a reader asks for."""

from collections.abc import Sequence

from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.verdicts import sign_of

MOST_ANSWERS = 240_000
"""Of a study, that are read: about ten microseconds each, on the way to every report."""


def by_interest(ablation: AblationResult) -> list[RowResult]:
    """-> the rows that are done: controls, then distilled ones by the primary metric, the best first, then all else."""
    done = [row for row in ablation.rows if row.done]
    controls = [row for row in done if any(row is control for control in ablation.controls)]
    return _once([*controls, *_distilled(done, ablation.primary), *done])


def chosen_rows(results: Results, ablation: AblationResult, tasks: Sequence[str]) -> tuple[tuple[RowResult, ...], int]:
    """-> rows in table order, and how many more are done; the controls, the best and its teacher among them."""
    first, *others = by_interest(ablation) or (None,)
    if first is None:
        return (), 0
    ordered = _once([first, *others[:1], *_teachers(ablation), *others])
    left = MOST_ANSWERS // len(results.ablations)
    kept: list[RowResult] = []
    for row in ordered:
        left -= _num_answers(row, tasks)
        if left >= 0 or len(kept) < 3:
            kept.append(row)
    return tuple(row for row in ablation.rows if any(row is one for one in kept)), len(ordered) - len(kept)


def _distilled(done: Sequence[RowResult], primary: Metric | None) -> list[RowResult]:
    rows = [row for row in done if row.row.model == "distill" and not row.is_replicate]
    return sorted(rows, key=lambda row: _rank(row, primary)) if primary else rows


def _rank(row: RowResult, metric: Metric) -> tuple[bool, float]:
    """-> for sorting: the best first, rows without a number last."""
    score = row.score(metric)
    is_number = score is not None and score.value == score.value
    return not is_number, -score.value * sign_of(row, metric) if score and is_number else 0.0


def _teachers(ablation: AblationResult) -> list[RowResult]:
    """-> the teachers, the fine-tuned one first."""
    done = [row for row in ablation.rows if row.done and row.row.model.startswith("teacher/")]
    return sorted(done, key=lambda row: row.row.model != "teacher/finetuned")


def _once(rows: Sequence[RowResult]) -> list[RowResult]:
    return list({id(row): row for row in rows}.values())


def _num_answers(row: RowResult, tasks: Sequence[str]) -> int:
    measured = (cell.evaluation["tasks"].get(task, {}).get("n", 0) for cell in row.done for task in tasks)
    return sum(measured)
