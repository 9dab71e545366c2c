"""Many comparisons at once: adjusted p, simultaneous intervals, who may be the best."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.paired import Contrast, Floats

# M comparisons on the same questions, G clusters of them, B resamples, R arms

RESAMPLES = 4000
AT_ONCE = 1 << 22
"""Numbers drawn at once."""
MOST_KEPT = 12_000
"""Clusters of which the draws are kept for the next comparison: 96 MB."""
ALPHA = 0.05


def holm(p_values: Sequence[float], weights: Sequence[float] = ()) -> list[float]:
    """-> adjusted p, in the same order; NaN stays NaN and is no member of the family.

    Holm (1979), section 4: in the order of p / w, each p times all the weights that are left over its own. Weights are
    shares of the error that the family may make, equal unless they are given.
    """
    w = list(weights) or [1.0] * len(p_values)
    order = sorted(
        (number for number, p in enumerate(p_values) if p == p), key=lambda number: p_values[number] / w[number]
    )
    adjusted, highest, left = list(p_values), 0.0, [w[number] for number in order]
    rest = list(accumulate(reversed(left)))[::-1]
    for number, weights_left in zip(order, rest, strict=True):
        highest = max(highest, min(1.0, p_values[number] * weights_left / w[number]))
        adjusted[number] = highest
    return adjusted


class Joint(NamedTuple):
    """Comparisons that were made on the same questions."""

    sums: Sequence[Floats]
    """Of each comparison G: of its differences over each cluster."""
    group_N: NDArray[np.int64]
    contrasts: Sequence[Contrast]
    weights: Sequence[float]
    """Of each comparison: its share of the error that the family may make."""

    def errors(self, seed: int) -> tuple[Floats, Floats]:
        """-> B x M: (d* - d) / SE over drawn clusters, and M weights; of the comparisons that have an error."""
        se_M, value_M = (np.array([getattr(one, name) for one in self.contrasts]) for name in ("se", "value"))
        known = np.isfinite(se_M) & (se_M > 0)
        if not known.any():
            return np.zeros((RESAMPLES, 0)), np.zeros(0)
        sums_GM = np.stack(self.sums, 1)[:, known].astype(float)
        shifted_BM = _means(sums_GM, np.bincount(self.group_N).astype(float), seed) - value_M[known]
        # the error of the questions alone, which is all that drawing questions again can show
        return shifted_BM / shifted_BM.std(0), np.array(self.weights)[known]


def simultaneous_alpha(joints: Sequence[Joint], seed: int = 0) -> float:
    """-> q, so that the intervals of all comparisons, each at the level 1 - q * its weight, hold together with 95 %.

    From the max-T bootstrap (Westfall and Young 1993), weighted (Westfall, Krishen and Young 1998): questions, or
    clusters, are drawn whole, the same for all comparisons on them; q is the 5 % quantile of the smallest p / w, where
    p is that of |d* - d| / SE under a normal law, so that each interval can then have its own degrees of freedom. With
    weights that add up to 1 it is 5 % (Bonferroni), and more as comparisons go together.
    """
    from scipy.stats import norm

    lowest_B = np.full(RESAMPLES, np.inf)
    for number, joint in enumerate(joints):
        t_BM, weights_M = joint.errors(seed + number)
        for weight in np.unique(weights_M):
            highest_B = np.abs(t_BM[:, weights_M == weight]).max(1)
            lowest_B = np.minimum(lowest_B, 2 * norm.sf(highest_B) / weight)
    return float(np.quantile(lowest_B, ALPHA)) if np.isfinite(lowest_B).all() else ALPHA


def simultaneous_level(alpha: float, weight: float) -> float:
    """-> the level of one interval, never under 95 %."""
    return 1 - min(alpha * weight, ALPHA)


def adjusted_interval(contrast: Contrast, level: float) -> tuple[float, float]:
    """-> the interval of one comparison at the level that holds for all."""
    half = contrast.half_width(level)
    return contrast.value - half, contrast.value + half


def resampled(scores: Sequence[Floats], group_N: NDArray[np.int64], seed: int = 0) -> Floats:
    """-> B x R means of each arm's scores (N) over drawn questions, or clusters drawn whole; the same for all arms."""
    columns = [np.bincount(group_N, scores_N) for scores_N in scores]
    return _means(np.stack(columns, 1).astype(float), np.bincount(group_N).astype(float), seed)


def best(means_BR: Floats) -> Floats:
    """-> in which share of resamples each arm's mean is the highest: question noise alone.

    A tie counts for each of those that share it, in parts.
    """
    is_best_BR = means_BR >= means_BR.max(1, keepdims=True) - 1e-12
    shares_R: Floats = (is_best_BR / is_best_BR.sum(1, keepdims=True)).mean(0)
    return shares_R


def may_be_best(means_BR: Floats, ahead: Sequence[Sequence[Contrast]]) -> list[bool]:
    """-> whether each arm belongs to a set that holds the best one with 95 %; `ahead[r]`: all others less arm r.

    Arm r is out where another is ahead of it by more than t(level, df) SE (multiple comparisons with the best, Hsu
    1984; Gupta's subset selection, 1965). The level is that of c under a normal law, and c the 95 % quantile of
    max (d* - d) / SE over the others, one-sided, from resampled questions: if r is the best, none of them is truly
    ahead, and one seems to be in 5 % of studies. So no correction for the number of arms that are tried.
    """
    return [not _is_behind(np.delete(means_BR, r, 1) - means_BR[:, [r]], others) for r, others in enumerate(ahead)]


def _is_behind(shifted_BM: Floats, others: Sequence[Contrast]) -> bool:
    from scipy.stats import norm

    spread_M = shifted_BM.std(0)
    known = spread_M > 0
    highest_B = ((shifted_BM - shifted_BM.mean(0))[:, known] / spread_M[known]).max(1, initial=0.0)
    level = float(norm.cdf(max(float(np.quantile(highest_B, 1 - ALPHA)), norm.ppf(1 - ALPHA))))
    return any(one.value > one.half_width(2 * level - 1) for one in others)


def _means(sums_GM: Floats, sizes_G: Floats, seed: int) -> Floats:
    counts = _kept_counts(len(sizes_G), seed) if len(sizes_G) <= MOST_KEPT else _counts(len(sizes_G), seed)
    drawn = (counts_BG.astype(float) for counts_BG in counts)
    return np.concatenate([counts_BG @ sums_GM / (counts_BG @ sizes_G)[:, None] for counts_BG in drawn])


@lru_cache(maxsize=3)
def _kept_counts(num: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    """What all comparisons on one task's questions draw alike."""
    return tuple(_counts(num, seed))


def _counts(num: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    """-> B x G, in parts: how often each cluster is drawn."""
    drawing, rows = np.random.default_rng(seed), max(1, AT_ONCE // num)
    for begin in range(0, RESAMPLES, rows):
        some = min(rows, RESAMPLES - begin)
        drawn = drawing.integers(num, size=(some, num)) + np.arange(some)[:, None] * num
        yield np.bincount(drawn.ravel(), minlength=some * num).reshape(some, num).astype(np.uint16)
