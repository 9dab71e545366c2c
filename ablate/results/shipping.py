"""Which row to ship: the best by the primary metric, its equals, and the cheapest of them."""

from typing import NamedTuple

from ablate.results.collect import CellResult, Metric, Results, RowResult


class Shipping(NamedTuple):
    """Over all distilled rows of a pair, each recipe once."""

    metric: Metric
    best: RowResult
    equals: tuple[RowResult, ...]
    """Rows that cannot be told from the best, it among them."""
    cheapest: RowResult
    cell: CellResult
    """Of the cheapest: the one to export."""


def shipping_of(results: Results) -> tuple[Shipping, ...]:
    """-> one a pair of models, in the study's order; none before anything is compared."""
    return ()
