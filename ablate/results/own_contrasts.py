"""An ablation's own contrasts, as its grid implies them: which rows stand against which, and with what weight.

Of two values of an axis the later listed stands against the earlier. Of three or more that are numbers: the line from
the lowest to the highest, and each value against the study's own. Of three or more others: each against the study's
own, or the first where that is not among them. All of it is averaged over the rest of the grid, with equal weights
over the combinations of the other axes that are whole. Two axes have an interaction where each has two values or an
order, and where no row is missing: by how much the first one's contrast differs along the second. Grids of three axes
or more have main effects alone. Each pair is for itself; rows that stand beside a grid are compared with the control
alone, and a `zip` or list of rows is one axis without an order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

from ablate.results.axes import LEAST_VALUES, Axis, axis_of, numeric_axis, varied_paths, weights
from ablate.results.collect import RowResult
from ablate.study.cells import Row
from ablate.study.names import value_text
from ablate.study.resolve import MisfitError, Resolver

EffectKind: TypeAlias = Literal["levels", "trend", "best", "interaction", "stated"]
"""levels: two values of an axis, averaged over the rest of the grid (a main effect, where there are two axes);
trend: along an ordered axis; best: its best value against the study's default; interaction: of two axes;
stated: one that the study's `contrasts:` says."""
Point: TypeAlias = tuple[str, ...]
"""Values on some axes."""


@dataclass(frozen=True)
class Design:
    """One contrast before anything is measured."""

    kind: EffectKind
    axis: tuple[str, ...]
    plus: str
    minus: str
    weights: Mapping[int, float]
    """Number of a row -> its weight; of all that take part, so that some can be 0."""
    alone: tuple[int, ...] = ()
    """Rows with which no other can be set that differs in the axis alone."""
    name: str = ""
    """What the study calls it, where it states it."""


class _Factor(NamedTuple):
    """An axis, and where the rows stand on it."""

    paths: tuple[str, ...]
    keys: tuple[str, ...]
    """Of each row."""
    texts: Mapping[str, str]
    """Key -> the value as a study writes it, in the order in which they are listed."""
    own: str | None
    """Key of the study's own value."""
    line: Axis | None
    """Of an ordered axis."""


class _Side(NamedTuple):
    """What each point of one axis, or of two, weighs."""

    kind: EffectKind
    plus: str
    minus: str
    over: Mapping[Point, float]


def designs(
    resolver: Resolver, rows: Sequence[RowResult], grid: Sequence[str], present: Sequence[bool]
) -> list[Design]:
    """-> the contrasts of one pair's distilled rows, the main ones first.

    `grid`: the paths of the ablation's grid; `present`: whether each row has what is compared.
    """
    numbers, factors = _factors(resolver, rows, grid)
    there = [number for number in numbers if present[number]]
    of_factors = [list(_sides(factor, {factor.keys[number] for number in there})) for factor in factors]
    planned = [([factor], side) for factor, sides in zip(factors, of_factors, strict=True) for side in sides]
    if len(factors) == 2:
        planned += [(factors, side) for side in _interaction(*of_factors)]
    spread = [_spread(side, varied, factors, numbers, set(there)) for varied, side in planned]
    return [design for design in spread if design.weights]


def _factors(resolver: Resolver, rows: Sequence[RowResult], grid: Sequence[str]) -> tuple[Sequence[int], list[_Factor]]:
    """-> the rows that stand on axes, and the axes."""
    varied = varied_paths(rows)
    if len(varied) == 1:
        return range(len(rows)), [_factor(resolver, rows, varied[0], axis_of(rows))]
    inside = [number for number, row in enumerate(rows) if grid and row.row.values.keys() == set(grid)]
    on_grid = [rows[number] for number in inside]
    axes = [path for path in grid if path in varied_paths(on_grid)]
    if axes:
        return inside, [_factor(resolver, rows, path, numeric_axis(path, on_grid)) for path in axes]
    return range(len(rows)), [_side_by_side(resolver, rows, varied)] if varied else []


def _factor(resolver: Resolver, rows: Sequence[RowResult], path: str, line: Axis | None) -> _Factor:
    values = [row.row.values.get(path) for row in rows]
    keys = tuple(map(repr, values))
    own = (key for key, row in zip(keys, rows, strict=True) if _is_own(resolver, row.row, [path]))
    texts = dict(zip(keys, map(value_text, values), strict=True))
    return _Factor((path,), keys, texts, next(own, None), line)


def _side_by_side(resolver: Resolver, rows: Sequence[RowResult], varied: Sequence[str]) -> _Factor:
    names = tuple(row.row.name for row in rows)
    own = (row.row.name for row in rows if _is_own(resolver, row.row, varied))
    return _Factor(tuple(varied), names, {name: name for name in names}, next(own, None), None)


def _is_own(resolver: Resolver, row: Row, paths: Sequence[str]) -> bool:
    """Whether a row is what the study makes of it where nothing is said at these paths."""
    rest = {path: value for path, value in row.values.items() if path not in paths}
    over = resolver.overlay(resolver.study.ablations[row.ablation].set)
    try:
        return resolver.setting(over, resolver.overlay(rest)) == row.setting
    except MisfitError:
        return False


def _sides(factor: _Factor, there: set[str]) -> Iterator[_Side]:
    """-> the contrasts along one axis; `there`: the values that any row has of what is compared."""
    keys, texts = list(factor.texts), factor.texts
    if len(keys) == 2:
        yield _against("levels", keys[1], keys[0], texts)
        return
    if factor.line is None:
        base = factor.own or keys[0]
        yield from (_against("levels", key, base, texts) for key in keys if key != base)
        return
    number_of = {key: float(key) for key in keys if key in there}
    if len(number_of) >= LEAST_VALUES:
        ordered = sorted(number_of, key=lambda key: number_of[key])
        line = weights(Axis(factor.line.path, tuple(number_of.values())))
        over: dict[Point, float] = {(key,): w for key, w in zip(number_of, line, strict=True)}
        yield _Side("trend", texts[ordered[-1]], texts[ordered[0]], over)
    if factor.own is not None:
        yield from (_against("best", key, factor.own, texts) for key in keys if key != factor.own)


def _against(kind: EffectKind, plus: str, minus: str, texts: Mapping[str, str]) -> _Side:
    return _Side(kind, texts[plus], texts[minus], {(plus,): 1.0, (minus,): -1.0})


def _interaction(first: Sequence[_Side], second: Sequence[_Side]) -> Iterator[_Side]:
    """-> by how much the first axis's contrast differs along the second; where each has a single one."""
    one, other = ([side for side in sides if side.kind != "best"] for sides in (first, second))
    if len(one) == len(other) == 1:
        over = {a + b: v * w for (a, v), (b, w) in product(one[0].over.items(), other[0].over.items())}
        yield _Side("interaction", other[0].plus, other[0].minus, over)


def _spread(
    side: _Side, varied: Sequence[_Factor], factors: Sequence[_Factor], numbers: Sequence[int], there: set[int]
) -> Design:
    """-> the weights of the rows: in each combination of the other axes that is whole, an equal share of them."""
    rest = [factor for factor in factors if factor not in varied]
    strata: dict[Point, dict[Point, int]] = {}
    for number in numbers:
        point = tuple(factor.keys[number] for factor in varied)
        if point in side.over:
            strata.setdefault(tuple(factor.keys[number] for factor in rest), {})[point] = number
    whole = [
        stratum
        for stratum in strata.values()
        if all(point in stratum and stratum[point] in there for point in side.over)
    ]
    shared = {number: side.over[point] / len(whole) for stratum in whole for point, number in stratum.items()}
    alone = (number for stratum in strata.values() for number in stratum.values() if number in there - shared.keys())
    paths = tuple(path for factor in varied for path in factor.paths)
    return Design(side.kind, paths, side.plus, side.minus, shared, tuple(alone))
