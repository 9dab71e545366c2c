"""Scores and differences as people say them: points of a share of right answers, else the metric's own unit."""

import math
from decimal import Decimal

from ablate.report.formatting import number
from ablate.results.collect import Metric

SHARES = frozenset({"exact_match", "em", "f1", "mc1", "mc2", "contains", "pass@1", "pass_at_1"})
"""Metrics of lm-eval that lie in 0..1, beside those with acc in their name."""
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
    return f"{number_text(metric, value, 1)} %" if is_share(metric) else f"{value:.4g}".replace("-", MINUS)


def difference_text(metric: Metric, value: float, places: int) -> str:
    """-> a difference with its unit: `16 points`, `1 point`, `0.12`."""
    text = number_text(metric, value, places)
    return text + unit_text(metric, text)


def round_difference(metric: Metric, value: float) -> str:
    """-> a difference that is nobody's measurement: `1 point`, `0.5 points`."""
    text = f"{100 * value if is_share(metric) else value:.2g}"
    return text + unit_text(metric, text)


def unit_text(metric: Metric, text: str) -> str:
    """-> what follows a difference: ` point`, ` points`; nothing of a metric with a unit of its own."""
    if not is_share(metric):
        return ""
    return " point" if text == "1" else " points"


def number_text(metric: Metric, value: float, places: int, *, is_signed: bool = False) -> str:
    """-> a difference without its unit: `16`, `+0.12`."""
    sign = "+" if is_signed else ""
    if not is_share(metric):
        return f"{value:{sign}.{places}f}".replace("-", MINUS)
    # rounded as the share itself is: 0.1625 is 0.163 in a table, and 16.3 points here
    return f"{Decimal(f'{value:.{places + 2}f}') * 100:{sign}.{places}f}".replace("-", MINUS)


def shown_places(metric: Metric, places: int) -> int:
    """-> decimals of a score as they are seen, from those of the score itself: of a share there are two fewer."""
    return max(places - 2, 1) if is_share(metric) else places


def shown(metric: Metric, value: float, places: int, *, is_signed: bool = False) -> str:
    """-> a score or a difference in a picture, without its unit; `places`: decimals of the score itself."""
    if not math.isfinite(value):
        return number(value, places)
    return number_text(metric, value, shown_places(metric, places), is_signed=is_signed)


def axis_label(metric: Metric, name: str, *, is_difference: bool = False) -> str:
    """-> the name with the unit of what an axis shows: `HellaSwag acc_norm (%)`, `HellaSwag acc_norm (points)`."""
    return f"{name} ({'points' if is_difference else '%'})" if is_share(metric) else name


def places_of(metric: Metric, low: float, high: float, *, shows_signs: bool = True) -> int:
    """-> decimals for an interval and what lies in it: a quarter of its width is seen, and the sign of both ends."""
    scale = 100 if is_share(metric) else 1
    width, *ends = (abs(scale * value) for value in (high - low, low, high))
    fine = [-math.log10(width / 4)] if 0 < width < math.inf else []
    signs = [-math.log10(2 * end) + 1e-9 for end in ends if 0 < end < math.inf] if shows_signs else []
    return min(max(0, *map(math.ceil, [*fine, *signs, 0])), MOST_DECIMALS)
