"""Rows of one ablation that answered the same questions in the same way, their scores side by side."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.collect import AblationResult, Metric, RowResult
from ablate.results.paired import Contrast, Floats, linear, weighted
from ablate.results.question_scores import NotComparable


class AlignedRows(NamedTuple):
    """Rows by one metric, all on the same questions."""

    rows: tuple[RowResult, ...]
    scores: tuple[Floats, ...]
    """Of each row S x N: its seeds, the questions."""
    group_N: NDArray[np.int64]
    """Number of each question's cluster."""
    has_clusters: bool
    left_out: tuple[tuple[RowResult, str], ...]
    """Rows that cannot stand beside the others, and why."""

    @property
    def means(self) -> list[Floats]:
        """-> of each row its score on every question (N), averaged over its seeds."""
        return [scores_SN.mean(0) for scores_SN in self.scores]

    def contrast(self, weights: Sequence[float]) -> Contrast:
        """-> sum over rows of weight * mean score; rows of weight 0 add no noise."""
        used = [number for number, weight in enumerate(weights) if weight]
        scores, trained = [self.scores[r] for r in used], [self.rows[r].is_trained for r in used]
        return linear(scores, [weights[r] for r in used], self.group_N, self.has_clusters, trained)

    def differences(self, weights: Sequence[float]) -> Floats:
        """-> N: on each question the sum over rows of weight * score."""
        used = [number for number, weight in enumerate(weights) if weight]
        return weighted([self.scores[r] for r in used], [weights[r] for r in used])


def align_rows(rows: Sequence[RowResult], metric: Metric) -> AlignedRows:
    """-> the rows that can be compared with the first of them that is done; the others are left out, and say why."""
    kept: list[RowResult] = []
    scores: list[Floats] = []
    left_out = []
    group_N, has_clusters = np.zeros(0, np.int64), False
    for row in rows:
        try:
            _check(row, metric)
            aligned = row.aligned(kept[0] if kept else row, metric)
        except NotComparable as reason:
            left_out.append((row, str(reason)))
            continue
        kept.append(row)
        scores.append(aligned.arm_SN)
        group_N, has_clusters = aligned.group_N, aligned.has_clusters
    return AlignedRows(tuple(kept), tuple(scores), group_N, has_clusters, tuple(left_out))


def _check(row: RowResult, metric: Metric) -> None:
    if not row.done:
        raise NotComparable(row.cells[0].state)
    score = row.score(metric)
    if score is None or not math.isfinite(score.value):
        raise NotComparable("not measured" if score is None else "NaN")


def distilled(ablation: AblationResult) -> Iterator[tuple[RowResult | None, list[RowResult]]]:
    """-> each control (None: there is none) and the distilled rows that are held against it, in table order."""
    by_control: dict[int, tuple[RowResult | None, list[RowResult]]] = {}
    for row in ablation.rows:
        if row.row.model == "distill" and not row.is_replicate:
            control = ablation.control_of(row.row)
            by_control.setdefault(id(control), (control, []))[1].append(row)
    yield from by_control.values()


def of_each_pair(ablation: AblationResult) -> list[list[RowResult]]:
    """-> the distilled rows of each pair, in table order."""
    by_pair: dict[str, list[RowResult]] = {}
    for row in ablation.rows:
        if row.row.model == "distill" and not row.is_replicate:
            by_pair.setdefault(row.row.setting.pair, []).append(row)
    return list(by_pair.values())
