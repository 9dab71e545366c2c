"""The contrasts that an ablation states: which of its rows stand on each side, and what is wrong with that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ablate.core.errors import did_you_mean
from ablate.study.cells import Row, is_equal
from ablate.study.names import short_paths, value_text
from ablate.study.schema import Ablation, StatedContrast
from ablate.study.words import Finding


class Sides(NamedTuple):
    """Numbers of the rows that a contrast sets against each other."""

    plus: list[int]
    minus: list[int]


def sides_of(contrast: StatedContrast, rows: Sequence[Row]) -> Sides:
    """-> the rows on each side, among these."""
    return Sides(*([n for n, row in enumerate(rows) if _has(row, side)] for side in (contrast.plus, contrast.minus)))


def side_text(side: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """-> `finetuned`, where both sides say one and the same path; else `teacher=finetuned, student=baseline`."""
    if len(side) == 1 and side.keys() == other.keys():
        return value_text(next(iter(side.values())))
    short = short_paths([*side, *other])
    return ", ".join(f"{short[path]}={value_text(value)}" for path, value in side.items())


def contrast_findings(ablation: Ablation, rows: Sequence[Row]) -> Iterator[Finding]:
    """-> what no row of the ablation has, and sides that are not two."""
    distilled = [row for row in rows if row.model == "distill"]
    for name, contrast in ablation.contrasts.items():
        wrong = [
            finding._replace(loc=("contrasts", name, part, *finding.loc))
            for part, side in (("plus", contrast.plus), ("minus", contrast.minus))
            for finding in _side_findings(part, side, distilled)
        ]
        yield from wrong
        sides = sides_of(contrast, distilled)
        if not wrong and (both := set(sides.plus) & set(sides.minus)):
            names = ", ".join(distilled[number].name for number in sorted(both))
            message = f"contrasts: {names} would stand on both sides of {name!r}: say what differs in plus and in minus"
            yield Finding(("contrasts", name, "minus"), message, True)


def _has(row: Row, side: Mapping[str, Any]) -> bool:
    return all(path in row.values and is_equal(row.values[path], value) for path, value in side.items())


def _side_findings(part: str, side: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Finding]:
    """-> with its place in the side."""
    possible: dict[str, dict[str, Any]] = {}
    for row in rows:
        for path, value in row.values.items():
            possible.setdefault(path, {})[value_text(value)] = value
    wrong = list(_value_findings(side, possible))
    yield from wrong
    if not wrong and not any(_has(row, side) for row in rows):
        names = ", ".join(row.name for row in rows[:16])
        yield Finding((), f"contrasts: no row has all that {part} says. Its rows: {names}", True)


def _value_findings(side: Mapping[str, Any], possible: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    for path, value in side.items():
        if path not in possible:
            yield Finding(
                (path,), f"contrasts: no row of the ablation says {path!r}.{did_you_mean(path, possible)}", True
            )
        elif not any(is_equal(value, other) for other in possible[path].values()):
            hint = did_you_mean(value_text(value), possible[path])
            yield Finding((path,), f"contrasts: no row has {path} {value_text(value)!r}.{hint}")
