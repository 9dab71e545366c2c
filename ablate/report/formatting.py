"""Numbers, names and settings as a reader of the report sees them."""

import math
from collections.abc import Iterable
from typing import Any


def decimals(errors: Iterable[float | None], default: int = 4) -> int:
    """-> decimals that show the smallest of some standard errors with two digits; never fewer than 3."""
    known = [error for error in errors if error and math.isfinite(error)]
    return min(max(1 - math.floor(math.log10(min(known))), 3), 5) if known else default


def number(value: float, places: int, *, is_signed: bool = False) -> str:
    """0.4512, +0.0031; NaN as NaN; a real minus sign."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    return f"{value:{'+' if is_signed else ''}.{places}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """-> `93` of 0.93: to be followed by a percent sign once, behind an interval too; never a minus before 0."""
    return number(round(100 * share) + 0.0, 0)


def with_error(value: float, error: float | None, places: int, *, is_signed: bool = False) -> str:
    """0.4512 ± 0.0049; the value alone where it has no error."""
    text = number(value, places, is_signed=is_signed)
    return text if error is None or math.isnan(value) else f"{text} ± {number(error, places)}"


def interval_text(low: float, high: float, places: int) -> str:
    """`+0.0031 to +0.0212`."""
    return f"{number(low, places, is_signed=True)} to {number(high, places, is_signed=True)}"


def p_text(value: float) -> str:
    """0.031, < 0.001; nothing for NaN."""
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def noise(*, has_seeds: bool, exceptions: Iterable[str] = ()) -> str:
    """-> what errors hold: `questions and training seeds (of KD, lr=0.001: questions only)`."""
    names = list(exceptions)
    but = f" (of {listed(names)}: questions only)" if names else ""
    return f"questions and training seeds{but}" if has_seeds else "questions only"


def listed(names: Iterable[str], joint: str = "and") -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


def pair_suffix(pair: str, pairs: Iterable[str]) -> str:
    """` (qwen2)` where there are several pairs; nothing where there is one."""
    return f" ({pair})" if len(set(pairs)) > 1 else ""


def short(text: str, length: int = 80) -> str:
    """-> the first line, cut with an ellipsis."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def recipe_label(label: str) -> str:
    """-> a distilled row's label without the `KD, ` that all of them share, cut with an ellipsis."""
    return short(whole_recipe_label(label), 60)


def whole_recipe_label(label: str) -> str:
    """-> the same, uncut."""
    return label.removeprefix("KD, ")


def state_and_why(state: str, why: str, length: int = 80) -> str:
    """`failed: out of memory`; a reason that begins with the state stands alone."""
    reason = short(why, length)
    return reason if reason.startswith(state) else f"{state}: {reason}" if reason else state


def plural(number: int, noun: str, several: str = "") -> str:
    """`1 row`, `3 rows`; `several` where the plural takes more than an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or noun + 's'}"


def plain(value: Any) -> str:
    """-> a setting as one would write it in a study: shortest numbers, none, true, [a, b]."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, dict):
        named = value.get("name")
        rest = {key: item for key, item in value.items() if key != "name" or not isinstance(named, str)}
        inside = ", ".join(f"{key}: {plain(item)}" for key, item in rest.items())
        return f"{named} ({inside})" if isinstance(named, str) and inside else (named or inside)
    return ", ".join(map(plain, value)) if isinstance(value, list | tuple) else str(value)
