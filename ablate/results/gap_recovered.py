"""How much of the gap between the student alone and its teacher a distilled row has closed."""

from typing import NamedTuple

from ablate.results.collect import AblationResult, Metric, Results, RowResult


class Gap(NamedTuple):
    """(row - control) / (teacher - control), by one metric or over tasks."""

    value: float
    """1: as good as the teacher; NaN where it is refused."""
    low: float
    """Of the 95 % interval of this row alone; may be infinite."""
    high: float
    why: str = ""
    """Of a refusal: `the teacher is not ahead of the control`."""


def gap_of(results: Results, ablation: AblationResult, row: RowResult, metric: Metric | None) -> Gap | None:
    """-> of a distilled row, by its own teacher; `metric` None: over tasks. None where there is nothing to ask."""
    return None
