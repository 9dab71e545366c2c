"""The axes along which an ablation's rows stand, and the straight line along one that has an order."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ablate.results.collect import RowResult

LEAST_VALUES = 3
"""Of two values the trend is their difference."""


class Axis(NamedTuple):
    """A numeric field in which some rows differ."""

    path: str
    values: tuple[float, ...]
    """One a row."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def is_log(self) -> bool:
        """Learning rates are tried by factors."""
        return self.name == "lr" and min(self.values) > 0

    @property
    def centered(self) -> list[float]:
        """-> x less its mean: the logarithm of a learning rate, else the value."""
        x = [math.log(value) if self.is_log else value for value in self.values]
        return [one - math.fsum(x) / len(x) for one in x]


def weights(axis: Axis) -> list[float]:
    """-> of each row, so that sum of w * mean score is how far the least-squares line rises over the whole axis.

    w_j = (x_j - mean x) / sum of (x - mean x)^2 * (max x - min x): the linear contrast of ordered treatments (Maxwell
    and Delaney 2004, chapter 6), for unequal steps. Of rows that repeat the axis it is the mean of their lines.
    """
    x = axis.centered
    squares = math.fsum(one**2 for one in x)
    return [one / squares * (max(x) - min(x)) for one in x]


def bend_weights(axis: Axis) -> list[float]:
    """-> of each row: x^2 less what a straight line says of it, the quadratic contrast; its scale means nothing."""
    x = axis.centered
    slope = math.fsum(one**3 for one in x) / math.fsum(one**2 for one in x)
    level = math.fsum(one**2 for one in x) / len(x)
    rest = [one**2 - level - slope * one for one in x]
    return [one / max(map(abs, rest)) for one in rest]


def varied_paths(rows: Sequence[RowResult]) -> list[str]:
    """-> the settings in which rows of one table differ."""
    paths = {path for row in rows for path in row.row.values}
    return [path for path in sorted(paths) if len({repr(row.row.values.get(path)) for row in rows}) > 1]


def axis_of(rows: Sequence[RowResult]) -> Axis | None:
    """-> the axis along which rows stand: they differ in one numeric field alone, and take three values or more."""
    varied = varied_paths(rows)
    return numeric_axis(varied[0], rows) if len(varied) == 1 else None


def numeric_axis(path: str, rows: Sequence[RowResult]) -> Axis | None:
    """-> the field as an axis; None unless it is a number in every row, and takes three values or more."""
    values = [row.row.values.get(path) for row in rows]
    numbers = tuple(float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    is_axis = len(numbers) == len(values) and len(set(numbers)) >= LEAST_VALUES
    return Axis(path, numbers) if is_axis else None
