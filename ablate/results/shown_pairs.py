"""Which two rows of an ablation are laid side by side question by question."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.results.chosen_rows import by_interest
from ablate.results.collect import AblationResult, Results, RowResult
from ablate.results.effects import effects_of


class Pair(NamedTuple):
    """What a row has that another lacks is counted as won."""

    plus: RowResult
    minus: RowResult
    is_own: bool
    """Of the ablation's own question; else a distilled row against its control."""


def shown_pairs(results: Results, ablation: AblationResult) -> Iterator[Pair]:
    """-> the ablation's own contrast first, then distilled rows against their control, the best first; all done."""
    seen = set()
    for pair in (*_own(results, ablation), *_with_control(ablation)):
        key = (id(pair.plus), id(pair.minus))
        if pair.plus.done and pair.minus.done and key not in seen:
            seen.add(key)
            yield pair


def _own(results: Results, ablation: AblationResult) -> Iterator[Pair]:
    """-> of each contrast of two values by the primary metric one row of each, alike in all other settings."""
    for effect in effects_of(results, ablation):
        if effect.metric != ablation.primary or effect.kind not in ("levels", "best", "stated"):
            continue
        plus, minus = ([row for row, weight in effect.rows if weight * sign > 0] for sign in (1, -1))
        alike = (Pair(one, other, True) for one in plus for other in minus if _is_alike(one, other, effect.axis))
        yield from list(alike)[:1]


def _is_alike(one: RowResult, other: RowResult, axis: Sequence[str]) -> bool:
    """Whether two rows differ in nothing but the settings of an axis."""
    rest = [{path: value for path, value in row.row.values.items() if path not in axis} for row in (one, other)]
    return one.row.setting.pair == other.row.setting.pair and rest[0] == rest[1]


def _with_control(ablation: AblationResult) -> Iterator[Pair]:
    for row in by_interest(ablation):
        control = ablation.control_of(row.row)
        if row.row.model == "distill" and control is not None and control is not row:
            yield Pair(row, control, False)
