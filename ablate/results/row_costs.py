"""What a row cost: the work that it alone needs, and its part of what others need too."""

from typing import NamedTuple

from ablate.results.collect import Results, RowResult


class RowCost(NamedTuple):
    """Of all seeds of a row."""

    own_s: float
    """Device seconds of stages that no other row needs."""
    shared_s: float
    """Device seconds of stages that other rows need too (a teacher's fine-tuning, its cached answers), whole."""
    tokens: int
    """In the loss of its own trainings."""

    @property
    def whole_s(self) -> float:
        """What the row alone would cost."""
        return self.own_s + self.shared_s


def row_cost(results: Results, row: RowResult) -> RowCost | None:
    """-> None before any of its work is done."""
    return None
