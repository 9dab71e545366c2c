"""Two runs of one study held against each other, in two roots: what moved, question by question."""

import math
from itertools import product
from typing import Any, NamedTuple

from ablate.results.collect import Metric, Results, RowResult
from ablate.results.multiple_comparisons import ALPHA, holm
from ablate.results.paired import Contrast
from ablate.results.question_scores import NotComparable


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
        is_other = self.contrast.value != 0 or self.here != self.there
        return is_other if self.is_same else self.p_holm < ALPHA


def moves(here: Results, there: Results) -> list[Move]:
    """-> every row and column of `here`, each set of cells once, and what became of it `there`."""
    known = _rows(there)
    by_keys: dict[tuple[Any, ...], Move] = {}
    for ablation in here.ablations:
        for row, metric in product(ablation.rows, ablation.columns):
            if (_keys(row), metric) not in by_keys:
                other = known.get((ablation.name, row.row.name, row.row.setting.pair))
                by_keys[_keys(row), metric] = _move(ablation.name, row, other, metric)
    return _corrected(list(by_keys.values()))


def lacking(here: Results, there: Results) -> list[str]:
    """-> rows of the other run that this one has not, sorted."""
    return sorted("/".join(name[:2]) for name in _rows(there).keys() - _rows(here).keys())


def as_json(here: Results, there: Results, moves: list[Move]) -> dict[str, Any]:
    """-> comparison.json."""
    return {
        "here": str(here.plan.store.root),
        "there": str(there.plan.store.root),
        "only there": lacking(here, there),
        "moves": [_record(move) for move in moves],
    }


def _record(one: Move) -> dict[str, Any]:
    return {
        "ablation": one.ablation,
        "row": one.row.row.name,
        "pair": one.row.row.setting.pair,
        "metric": str(one.metric),
        "here": one.here,
        "there": one.there,
        "same_stages": one.is_same,
        "moved": one.has_moved,
        **(one.contrast.record() | {"p": one.contrast.p, "p_holm": one.p_holm} if one.contrast else {}),
        **({"not comparable": one.why} if one.why else {}),
    }


def _rows(results: Results) -> dict[tuple[str, str, str], RowResult]:
    """-> ablation, name, pair -> row."""
    return {
        (ablation.name, row.row.name, row.row.setting.pair): row
        for ablation in results.ablations
        for row in ablation.rows
    }


def _keys(row: RowResult) -> tuple[str, ...]:
    return tuple(cell.cell.evaluate.key for cell in row.cells)


def _move(ablation: str, row: RowResult, other: RowResult | None, metric: Metric) -> Move:
    move = Move(ablation, row, metric, _score(row, metric), None, None, "", is_same=False)
    if other is None:
        return move._replace(why="not in the other run")
    move = move._replace(there=_score(other, metric), is_same=_keys(row) == _keys(other))
    try:
        return move._replace(contrast=row.difference(other, metric))
    except NotComparable as reason:
        return move._replace(why=str(reason))


def _score(row: RowResult, metric: Metric) -> float | None:
    score = row.score(metric)
    return score.value if score else None


def _corrected(moves: list[Move]) -> list[Move]:
    tested = {number: move.contrast.p for number, move in enumerate(moves) if move.contrast and not move.is_same}
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    return [move._replace(p_holm=adjusted.get(number, math.nan)) for number, move in enumerate(moves)]
