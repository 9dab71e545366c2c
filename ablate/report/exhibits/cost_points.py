"""What the picture of cost against gain shows: each run once, with its score and what it cost."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.formatting import pair_suffix, whole_recipe_label
from ablate.results.collect import Metric, Results, RowResult
from ablate.results.row_costs import RowCost, row_cost, row_flops
from ablate.results.row_intervals import RowInterval, interval_of
from ablate.results.verdicts import sign_of


class Point(NamedTuple):
    """One run: of the rows that are the same work, the first."""

    row: RowResult
    label: str
    score: RowInterval
    cost: RowCost
    own: float
    """Along the axis: seconds, or FLOPs where times are of unlike devices."""
    shared: float
    is_front: bool = False
    """No other row is both as cheap and as good, and better in one of the two."""

    @property
    def whole(self) -> float:
        return self.own + self.shared


def points_of(results: Results, metric: Metric) -> tuple[list[Point], bool]:
    """-> a point for each distilled run and fine-tuned student, the cheapest first; whether costs are seconds."""
    rows: dict[frozenset[str], RowResult] = {}
    for row in (row for ablation in results.ablations for row in ablation.rows if _is_shown(row)):
        rows.setdefault(row.run, row)
    known = [
        (row, interval, cost)
        for row in rows.values()
        if (interval := interval_of(row, metric)) and (cost := row_cost(results, row)) and cost.is_whole
    ]
    is_timed = len({device for _, _, cost in known for device in cost.devices}) <= 1
    pairs = list(dict.fromkeys(row.row.setting.pair for row in rows.values()))
    points = [
        Point(
            row,
            whole_recipe_label(row.row.label) + pair_suffix(row.row.setting.pair, [*pairs[:1], row.row.setting.pair]),
            interval,
            cost,
            *spent,
        )
        for row, interval, cost in known
        if (spent := (cost.own_s, cost.shared_s) if is_timed else row_flops(results, row))
    ]
    sign = sign_of(points[0].row, metric) if points else 1
    return _with_front(sorted(points, key=lambda point: point.whole), sign), is_timed


def _is_shown(row: RowResult) -> bool:
    return (row.row.model == "distill" and not row.is_replicate) or row.row.model == "student/finetuned"


def _with_front(points: Sequence[Point], sign: int) -> list[Point]:
    """-> the same, those marked that no other one dominates."""
    return [point._replace(is_front=not any(_dominates(other, point, sign) for other in points)) for point in points]


def _dominates(one: Point, other: Point, sign: int) -> bool:
    gain = sign * (one.score.value - other.score.value)
    return one.whole <= other.whole and gain >= 0 and (one.whole < other.whole or gain > 0)
