"""Which row to ship: the best by the primary metric, its equals, and the cheapest of them."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.results.aligned_rows import align_rows
from ablate.results.best_rows import Contest, contest_of, contests_of
from ablate.results.collect import CellResult, Metric, Results, RowResult
from ablate.results.row_costs import row_cost, row_flops
from ablate.results.verdicts import sign_of


class Shipping(NamedTuple):
    """Over all students of a pair, distilled, fine-tuned or as they are, each recipe once."""

    metric: Metric
    best: RowResult
    equals: tuple[RowResult, ...]
    """Rows that neither this comparison nor any table tells from the best, it among them."""
    cheapest: RowResult
    """Of the equals, by what it alone would cost; the best, before costs are known."""
    cell: CellResult
    """Of the cheapest: the one to export. Its first seed, not its luckiest."""
    left_out: tuple[tuple[RowResult, str], ...] = ()
    """Rows that could not compete, and why."""


def shipping_of(results: Results) -> tuple[Shipping, ...]:
    """-> one a pair of models, in the study's order; none before anything is compared."""
    if "shipping" not in results.memo:
        results.memo["shipping"] = tuple(_shippings(results))
    shippings: tuple[Shipping, ...] = results.memo["shipping"]
    return shippings


def _shippings(results: Results) -> Iterator[Shipping]:
    metric = next((ablation.primary for ablation in results.ablations if ablation.primary), None)
    for pair in results.study.pairs if metric else ():
        assert metric
        rows = _competing(results, pair)
        seeds = max((len(row.done) for row in rows), default=0)
        whole = [row for row in rows if not row.is_trained or len(row.done) == seeds]
        aligned = align_rows(whole, metric)
        if seeds and len(aligned.rows) > 1:
            short = [(row, f"{len(row.done)} of {len(row.cells)} seeds") for row in rows if row not in whole]
            yield _shipping(results, contest_of(metric, aligned), tuple(short))


def _competing(results: Results, pair: str) -> list[RowResult]:
    """-> each recipe once, as the first table has it: a row that has fewer seeds than others is no match for them."""
    by_recipe: dict[tuple[str, ...], RowResult] = {}
    for ablation in results.ablations:
        for row in ablation.rows:
            if row.row.setting.pair == pair and _competes(row):
                by_recipe.setdefault(tuple(cell.cell.evaluate.key for cell in row.cells), row)
    return list(by_recipe.values())


def _competes(row: RowResult) -> bool:
    """Whether it is a student, as it is or trained in whatever way: one that nothing improves is the one to ship."""
    return not row.is_replicate and not row.row.model.startswith("teacher/")


def _shipping(results: Results, contest: Contest, short: tuple[tuple[RowResult, str], ...]) -> Shipping:
    metric = contest.metric
    rows = [candidate.row for candidate in contest.candidates]
    best = max(rows, key=lambda row: sign_of(row, metric) * _score(row, metric))
    behind = _behind(results, metric)
    possible = [one.row for one in contest.candidates if one.may_be_best]
    equals = tuple(row for row in possible if row is best or row.run not in behind)
    costs = _costs(results, equals)
    cheapest = min(equals, key=lambda row: (costs[id(row)], row is not best))
    return Shipping(metric, best, equals, cheapest, cheapest.done[0], (*contest.left_out, *short))


def _behind(results: Results, metric: Metric) -> set[frozenset[str]]:
    """-> runs that a table tells from its best: more rows compete here, so that less is told of each."""
    contests = [one for ablation in results.ablations for one in contests_of(results, ablation) if one.metric == metric]
    return {one.row.run for contest in contests for one in contest.candidates if not one.may_be_best}


def _score(row: RowResult, metric: Metric) -> float:
    score = row.score(metric)
    return score.value if score else -math.inf


def _costs(results: Results, rows: Sequence[RowResult]) -> dict[int, float]:
    """-> id of a row -> what it alone would cost: device time, or FLOPs where the devices are unlike."""
    known = [(row, row_cost(results, row)) for row in rows]
    if len({device for _, cost in known if cost for device in cost.devices}) > 1:
        flops = {id(row): row_flops(results, row) for row in rows}
        return {name: sum(both) if both else math.inf for name, both in flops.items()}
    return {id(row): cost.whole_s if cost else math.inf for row, cost in known}
