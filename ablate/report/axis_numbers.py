"""Numbers along an axis: where the ticks of a logarithmic one stand, and all numbers of an axis in one notation."""

import math
from collections.abc import Sequence
from decimal import Decimal

LONGEST = 6
"""Letters of a plain number: 0.0001, 100000."""
MOST_DECADES = 6
STEPS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
"""Ticks within a decade, the coarsest first that show two or more."""
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def log_ticks(low: float, high: float) -> list[float]:
    """-> ticks within a positive range: powers of ten where it holds three of them, else 1, 2, 5, or finer ones."""
    decades = [_power(k) for k in range(_exponent(low), _exponent(high) + 2) if low <= _power(k) <= high]
    if len(decades) > 2:
        return decades[:: math.ceil(len(decades) / MOST_DECADES)]
    exponents = range(_exponent(low), _exponent(high) + 1)
    for steps in STEPS:
        ticks = [float(f"{step}e{k}") for k in exponents for step in steps if low <= float(f"{step}e{k}") <= high]
        if len(ticks) > 1:
            return ticks
    return [float(f"{value:.3g}") for value in (low, high)]


def number_texts(values: Sequence[float]) -> list[str]:
    """-> 0.0001, 0.004, 0.02, or 10⁻⁵, 10⁻³, or 2 times 10⁻⁶ beside 1 times 10⁻⁵: one notation for all."""
    plain = [_plain(value) for value in values]
    if all(len(text.removeprefix("-")) <= LONGEST for text in plain):
        return [text.replace("-", "\N{MINUS SIGN}") for text in plain]
    if 0 in values:
        return [f"{value:g}" for value in values]
    parts = [_scientific(value) for value in values]
    are_powers = all(mantissa == "1" for mantissa, _ in parts)
    return [
        ("" if are_powers else f"{mantissa}\N{MULTIPLICATION SIGN}") + f"10{exponent}" for mantissa, exponent in parts
    ]


def _power(k: int) -> float:
    return float(f"1e{k}")


def _exponent(value: float) -> int:
    """-> k, where 10^k <= |value| < 10^(k + 1)."""
    return Decimal(repr(value)).adjusted() if value else 0


def _plain(value: float) -> str:
    """-> the shortest decimal text of up to 6 digits that matter, without an exponent."""
    text = format(Decimal(f"{value:.6g}"), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scientific(value: float) -> tuple[str, str]:
    """-> ("2.5", "⁻⁶")."""
    mantissa, _, exponent = f"{value:.5e}".partition("e")
    text = mantissa.rstrip("0").rstrip(".").replace("-", "\N{MINUS SIGN}")
    return text, str(int(exponent)).translate(RAISED)
