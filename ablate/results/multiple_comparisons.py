"""Many comparisons at once: adjusted p, simultaneous intervals, who may be the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.paired import Aligned, Contrast, Floats

# M comparisons on the same questions, G clusters of them, B resamples, R arms

RESAMPLES = 4000
AT_ONCE = 1 << 22
"""Numbers drawn at once."""
ALPHA = 0.05


def holm(p_values: Sequence[float]) -> list[float]:
    """-> adjusted p, in the same order (Holm 1979); NaN stays NaN and is no member of the family."""
    order = sorted((p, number) for number, p in enumerate(p_values) if p == p)
    adjusted, highest = list(p_values), 0.0
    for rank, (p, number) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[number] = highest
    return adjusted


class Joint(NamedTuple):
    """Comparisons that were made on the same questions."""

    aligned: Sequence[Aligned]

    def sums(self) -> tuple[Floats, Floats]:
        """-> G x M sums of d over each cluster, and G numbers of questions."""
        group_N = self.aligned[0].group_N
        columns = [np.bincount(group_N, pair.differences) for pair in self.aligned]
        return np.stack(columns, 1).astype(float), np.bincount(group_N).astype(float)


def simultaneous_level(joints: Sequence[Joint], contrasts: Sequence[Sequence[Contrast]], seed: int = 0) -> float:
    """-> the level of each interval at which all hold together with 95 %.

    From the max-T bootstrap (Westfall and Young 1993): questions, or clusters, are drawn whole, the same for all
    comparisons on them; c is the 95 % quantile of max |d* - d| / SE, and the level that of +-c under a normal law, so
    that each interval can then have its own degrees of freedom. Comparisons without an error are left out.
    """
    from scipy.stats import norm

    highest_B = np.zeros(RESAMPLES)
    for number, (joint, of_joint) in enumerate(zip(joints, contrasts, strict=True)):
        se_M = np.array([contrast.se for contrast in of_joint])
        known = np.isfinite(se_M) & (se_M > 0)
        if known.any():
            value_M = np.array([contrast.value for contrast in of_joint])
            shifted_BM = _resampled(joint, seed + number)[:, known] - value_M[known]
            # the error of the questions alone, which is all that drawing questions again can show
            highest_B = np.maximum(highest_B, np.abs(shifted_BM / shifted_BM.std(0)).max(1))
    c = float(np.quantile(highest_B, 1 - ALPHA))
    return float(1 - 2 * norm.sf(max(c, norm.ppf(1 - ALPHA / 2))))


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


def _resampled(joint: Joint, seed: int) -> Floats:
    """-> B x M means of d over drawn clusters."""
    return _means(*joint.sums(), seed)


def _means(sums_GM: Floats, sizes_G: Floats, seed: int) -> Floats:
    drawing, num = np.random.default_rng(seed), len(sizes_G)
    means = []
    rows = max(1, AT_ONCE // num)
    for begin in range(0, RESAMPLES, rows):
        some = min(rows, RESAMPLES - begin)
        drawn = drawing.integers(num, size=(some, num)) + np.arange(some)[:, None] * num
        counts_BG = np.bincount(drawn.ravel(), minlength=some * num).reshape(some, num).astype(float)
        means.append(counts_BG @ sums_GM / (counts_BG @ sizes_G)[:, None])
    return np.concatenate(means)
