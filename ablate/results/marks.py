"""What went wrong with a row's training or makes its scores mean little: each a mark of its own."""

from typing import Literal, NamedTuple, TypeAlias

from ablate.results.collect import AblationResult, Metric, Results, RowResult

MarkKind: TypeAlias = Literal["collapsed", "diverged", "over-fitted", "chance"]


class Mark(NamedTuple):
    """One row's."""

    row: RowResult
    kind: MarkKind
    metric: Metric | None = None
    """By which it is seen; None: by its losses."""
    value: float | None = None
    """That shows it: a score, a held-out loss at the end."""
    beside: float | None = None
    """What it is held against: chance level, the control's score, the lowest held-out loss."""


def marks_of(results: Results, ablation: AblationResult) -> tuple[Mark, ...]:
    """-> in table order."""
    return ()
