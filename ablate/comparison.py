"""Two runs of one study held against each other, in two roots: what moved, question by question."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ablate.contrasts import Contrast
from ablate.families import ALPHA, holm
from ablate.scores import Metric, Results, RowResult
from ablate.statistics import NotComparable


class Move(NamedTuple):
    """One row by one metric, here and there."""

    ablation: str
    row: RowResult
    metric: Metric
    here: float | None
    there: float | None
    contrast: Contrast | None
    """Here less there; None where that cannot be said."""
    why: str
    """What keeps the two from being compared."""
    is_same: bool
    """Whether both come from the same stages, by key: then only rounding may differ."""
    p_holm: float = math.nan
    """Over all rows and metrics that were made anew."""

    @property
    def has_moved(self) -> bool:
        """Told from no difference after correction; of the same stages: any difference at all."""
        if self.contrast is None:
            return False
        return self.here != self.there if self.is_same else self.p_holm < ALPHA


def moves(here: Results, there: Results) -> list[Move]:
    """-> every row and column of `here`, each set of cells once, and what became of it `there`."""
    known = {(ablation.name, *_name(row)): row for ablation in there.ablations for row in ablation.rows}
    found: dict[tuple[Any, ...], Move] = {}
    for ablation in here.ablations:
        for row in ablation.rows:
            other = known.get((ablation.name, *_name(row)))
            for metric in ablation.columns:
                found.setdefault((_keys(row), metric), _move(ablation.name, row, other, metric))
    return _corrected(list(found.values()))


def records(found: list[Move]) -> Iterator[dict[str, Any]]:
    """-> for comparison.json."""
    for one in found:
        yield {
            "ablation": one.ablation,
            "row": one.row.row.name,
            "pair": one.row.row.setting.pair,
            "metric": str(one.metric),
            "here": one.here,
            "there": one.there,
            "same_stages": one.is_same,
            "moved": one.has_moved,
            **(one.contrast._asdict() | {"p": one.contrast.p, "p_holm": one.p_holm} if one.contrast else {}),
            **({"not comparable": one.why} if one.why else {}),
        }


def _name(row: RowResult) -> tuple[str, str]:
    return row.row.name, row.row.setting.pair


def _keys(row: RowResult) -> tuple[str, ...]:
    return tuple(cell.cell.evaluate.key for cell in row.cells)


def _move(ablation: str, row: RowResult, other: RowResult | None, metric: Metric) -> Move:
    made = Move(ablation, row, metric, _score(row, metric), None, None, "", is_same=False)
    if other is None:
        return made._replace(why="not in the other run")
    made = made._replace(there=_score(other, metric), is_same=_keys(row) == _keys(other))
    try:
        return made._replace(contrast=row.difference(other, metric))
    except NotComparable as reason:
        return made._replace(why=str(reason))


def _score(row: RowResult, metric: Metric) -> float | None:
    score = row.score(metric)
    return score.value if score else None


def _corrected(found: list[Move]) -> list[Move]:
    tested = [number for number, one in enumerate(found) if one.contrast and not one.is_same]
    adjusted = dict(zip(tested, holm([found[n].contrast.p for n in tested]), strict=True))  # type: ignore[union-attr]
    return [one._replace(p_holm=adjusted.get(number, math.nan)) for number, one in enumerate(found)]
