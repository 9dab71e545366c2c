"""The pieces of all exhibits and overviews, made on every core: drawing takes nearly all the time of a report."""

import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import NamedTuple, TypeAlias

from ablate.report.exhibits.base import EXHIBITS, OVERVIEWS, Piece, piece_of
from ablate.results.best_rows import contests_of
from ablate.results.calibration import calibrations_of
from ablate.results.collect import Results
from ablate.results.effects import effects_of
from ablate.results.gap_recovered import gaps_of
from ablate.results.read_ahead import read_ahead
from ablate.results.trends import trends_of
from ablate.results.verdicts import findings_of

_Wanted: TypeAlias = tuple[int | None, str]
"""Number of an ablation, or None for the whole study; name of what shows it."""
LEAST_CELLS = 12
"""Of a smaller study the drawing is done before others could help."""
_at_hand: dict[str, Results] = {}
"""What forked helpers draw from: it need not be sent to them."""


class Drawn(NamedTuple):
    """The pieces of a page, in its order; the same whoever drew them."""

    exhibits: Mapping[str, list[Piece]]
    """Name of an ablation -> its pieces."""
    overviews: Mapping[str, Piece]
    """Name of an overview -> its piece."""


def draw(results: Results) -> Drawn:
    """-> what every exhibit and overview shows of a study."""
    read_ahead(results)
    wanted: list[_Wanted] = [(None, name) for name in OVERVIEWS]  # the longest first: no core waits for them at the end
    wanted += [(number, name) for number in range(len(results.ablations)) for name in EXHIBITS]
    exhibits: dict[str, list[Piece]] = {ablation.name: [] for ablation in results.ablations}
    overviews: dict[str, Piece] = {}
    for (number, name), piece in zip(wanted, _draw_all(results, wanted), strict=True):
        if piece and number is None:
            overviews[name] = piece
        elif piece and number is not None:
            exhibits[results.ablations[number].name].append(piece)
    return Drawn(exhibits, overviews)


def _draw_all(results: Results, wanted: Sequence[_Wanted]) -> list[Piece | None]:
    cores = len(os.sched_getaffinity(0))
    # a thread of this process might hold a lock, which a fork would then wait for
    if cores == 1 or threading.active_count() > 1 or len(results.cells) < LEAST_CELLS:
        return [_draw_one(results, number, name) for number, name in wanted]
    finders = (findings_of, effects_of, contests_of, trends_of, calibrations_of)
    for ablation, find in product(results.ablations, finders):
        find(results, ablation)  # remembered, for all helpers and for results.json
    for ablation in results.ablations:
        list(gaps_of(results, ablation))
    _at_hand["results"] = results
    try:
        with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_draw_at_hand, *zip(*wanted, strict=True)))
    finally:
        _at_hand.clear()


def _draw_at_hand(number: int | None, name: str) -> Piece | None:
    return _draw_one(_at_hand["results"], number, name)


def _draw_one(results: Results, number: int | None, name: str) -> Piece | None:
    """-> an overview's piece, or that of an exhibit of the ablation with this number."""
    if number is None:
        return piece_of(OVERVIEWS, name, results)
    return piece_of(EXHIBITS, name, results, results.ablations[number])
