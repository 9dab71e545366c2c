"""The contrasts that a study states, as weights of rows: each side's mean, within what both have in common."""

from collections.abc import Sequence

from ablate.results.collect import RowResult
from ablate.results.own_contrasts import Design, Point
from ablate.study.schema import Ablation
from ablate.study.stated_contrasts import Sides, side_text, sides_of


def stated(ablation: Ablation, rows: Sequence[RowResult], present: Sequence[bool]) -> list[Design]:
    """-> the contrasts of an ablation's distilled rows, of all pairs, in the order of the file.

    Rows that agree in all that a contrast does not name are set against each other; over such sets it is a mean with
    equal weights, and a set that lacks a row is left out. Where no set has both sides, it is mean against mean.
    """
    planned = []
    for name, contrast in ablation.contrasts.items():
        paths = tuple(dict.fromkeys([*contrast.plus, *contrast.minus]))
        sides = sides_of(contrast, [row.row for row in rows])
        chosen = {*sides.plus, *sides.minus}
        weights = _weights(_sets(rows, sides, paths), {number for number in chosen if present[number]})
        texts = side_text(contrast.plus, contrast.minus), side_text(contrast.minus, contrast.plus)
        alone = tuple(number for number in sorted(chosen - weights.keys()) if present[number])
        planned.append(Design("stated", paths, *texts, weights, alone, name))
    return [design for design in planned if design.weights]


def _sets(rows: Sequence[RowResult], sides: Sides, paths: Sequence[str]) -> list[Sides]:
    """-> the rows of both sides that agree in all other paths; all rows, where none do."""
    by_rest: dict[Point, Sides] = {}
    others = sorted({path for number in (*sides.plus, *sides.minus) for path in rows[number].row.values} - {*paths})
    for side in (0, 1):
        for number in sides[side]:
            rest = tuple(repr(rows[number].row.values.get(path)) for path in others)
            by_rest.setdefault(rest, Sides([], []))[side].append(number)
    return [each for each in by_rest.values() if each.plus and each.minus] or [sides]


def _weights(sets: Sequence[Sides], there: set[int]) -> dict[int, float]:
    whole = [each for each in sets if there.issuperset((*each.plus, *each.minus))]
    return {
        number: sign / len(side) / len(whole)
        for each in whole
        for side, sign in ((each.plus, 1), (each.minus, -1))
        for number in side
    }
