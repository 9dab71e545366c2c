"""The pieces of all exhibits, made on every core: drawing takes nearly all the time of a report."""

import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from ablate.report.exhibits.base import EXHIBITS, Piece, piece_of
from ablate.results.best_rows import contests_of
from ablate.results.calibration import calibrations_of
from ablate.results.collect import AblationResult, Results
from ablate.results.effects import effects_of
from ablate.results.read_ahead import read_ahead
from ablate.results.trends import trends_of
from ablate.results.verdicts import findings_of

LEAST_CELLS = 12
"""Of a smaller study the drawing is done before others could help."""
_at_hand: dict[str, Results] = {}
"""What forked helpers draw from: it need not be sent to them."""


def draw_exhibits(results: Results) -> Mapping[str, list[Piece]]:
    """-> name of an ablation -> its pieces, in the order of the page; the same whoever drew them."""
    read_ahead(results)
    wanted = [(number, name) for number in range(len(results.ablations)) for name in EXHIBITS]
    drawn = zip(wanted, _draw_all(results, wanted), strict=True)
    shown: dict[str, list[Piece]] = {ablation.name: [] for ablation in results.ablations}
    for (number, _), piece in drawn:
        if piece:
            shown[results.ablations[number].name].append(piece)
    return shown


def _draw_all(results: Results, wanted: Sequence[tuple[int, str]]) -> list[Piece | None]:
    cores = len(os.sched_getaffinity(0))
    # a thread of this process might hold a lock, which a fork would then wait for
    if cores == 1 or threading.active_count() > 1 or len(results.cells) < LEAST_CELLS:
        return [piece_of(EXHIBITS, name, results, results.ablations[number]) for number, name in wanted]
    finders = (findings_of, effects_of, contests_of, trends_of, calibrations_of)
    for ablation, find in product(results.ablations, finders):
        find(results, ablation)  # remembered, for all helpers and for results.json
    _at_hand["results"] = results
    try:
        with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_draw_one, *zip(*wanted, strict=True)))
    finally:
        _at_hand.clear()


def _draw_one(number: int, name: str) -> Piece | None:
    results = _at_hand["results"]
    ablation: AblationResult = results.ablations[number]
    return piece_of(EXHIBITS, name, results, ablation)
