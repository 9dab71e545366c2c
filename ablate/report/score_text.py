"""Scores and differences as people say them: points of a share of right answers, else the metric's own unit."""

import math
from collections.abc import Iterable
from decimal import Decimal

from ablate.results.collect import Metric

SHARES = frozenset({"exact_match", "em", "f1", "mc1", "mc2", "contains", "pass@1", "pass_at_1"})
"""Metrics of lm-eval that lie in 0..1 beside those with acc in their name."""
MINUS = "\N{MINUS SIGN}"
MOST_DECIMALS = 5


def is_share(metric: Metric) -> bool:
    """Whether its scores are shares of right answers, whose differences are points: 100 times the score."""
    name = metric.name.partition(",")[0].lower()
    return name in SHARES or "acc" in name.split("_")


def score_text(metric: Metric, value: float) -> str:
    """`93.3 %`, or `1.234` of a metric with a unit of its own."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4g}".replace("-", MINUS)


def points_text(metric: Metric, value: float, places: int | None = None) -> str:
    """-> the size of a difference with its unit: `16 points`, `1 point`, `0.12`."""
    places = places_of(metric, [value]) if places is None else places
    number = number_text(metric, value, places)
    if not is_share(metric):
        return number
    return f"{number} point" if number == "1" else f"{number} points"


def number_text(metric: Metric, value: float, places: int, *, is_signed: bool = False) -> str:
    """-> a difference without its unit: `16`, `+0.12`."""
    sign = "+" if is_signed else ""
    if not is_share(metric):
        return f"{value:{sign}.{places}f}".replace("-", MINUS)
    # rounded as the share itself is: 0.1625 is 0.163 in a table, and 16.3 points here
    return f"{Decimal(f'{value:.{places + 2}f}') * 100:{sign}.{places}f}".replace("-", MINUS)


def places_of(metric: Metric, values: Iterable[float]) -> int:
    """-> the fewest decimals at which a reader sees the sign of every number, and two digits of the largest."""
    scale = 100 if is_share(metric) else 1
    known = [abs(scale * value) for value in values if math.isfinite(value) and value]
    if not known:
        return 0
    largest = max(1 - math.floor(math.log10(max(known))), 0)
    smallest = math.ceil(-math.log10(2 * min(known)) + 1e-9)
    return min(max(largest, smallest, 0), MOST_DECIMALS)
