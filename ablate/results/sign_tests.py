"""Checks of a difference that decide nothing: McNemar's of 0/1 scores, and flipped signs of all others."""

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.paired import EXACT_BELOW, Aligned

MOST_RESAMPLES = 9_999
MOST_FLIPPED = 1_000
"""Clusters whose signs are drawn; 80 MB of them."""
ROUNDING = 1e-12


class Flips(NamedTuple):
    """Questions of 0/1 scores on which two arms differ."""

    won: int
    """Only the arm is right."""
    lost: int
    """Only the control is."""

    @property
    def p(self) -> float:
        """McNemar: exact below 25 such questions, else mid-p (Fagerland, Lydersen, Laake 2013)."""
        from scipy.stats import binom, binomtest

        num, least = self.won + self.lost, min(self.won, self.lost)
        if num == 0:
            return 1.0
        if num < EXACT_BELOW:
            return float(binomtest(self.won, num).pvalue)
        return float(min(1.0, 2 * binom.cdf(least, num, 0.5) - binom.pmf(least, num, 0.5)))


def flips(aligned: Aligned) -> Flips | None:
    """-> None with several seeds, and where scores are not 0 or 1."""
    if len(aligned.arm_SN) > 1 or len(aligned.control_SN) > 1 or not aligned.is_binary:
        return None
    arm_N, control_N = aligned.arm_SN[0], aligned.control_SN[0]
    return Flips(int((arm_N > control_N).sum()), int((arm_N < control_N).sum()))


def sign_flip_p(aligned: Aligned, seed: int = 0) -> float:
    """-> p of no difference when each cluster's difference might as well have had the other sign; NaN of one.

    All ways to flip them where there are few, else MOST_RESAMPLES drawn ones, and of very many clusters the normal law
    that flipped signs then have: variance the sum of squares. Clusters without a difference flip nothing.
    """
    from scipy.stats import norm

    sums_G = np.bincount(aligned.group_N, aligned.differences)
    if len(sums_G) < 2:
        return math.nan
    flipped_G = sums_G[sums_G != 0]
    if len(flipped_G) == 0:
        return 1.0
    if len(flipped_G) > MOST_FLIPPED:
        return float(2 * norm.sf(abs(flipped_G.sum()) / math.sqrt(float((flipped_G**2).sum()))))
    drawn_B = np.abs(_signs(len(flipped_G), seed) @ flipped_G)
    at_least = int((drawn_B >= abs(flipped_G.sum()) * (1 - ROUNDING)).sum())
    is_exact = 2 ** len(flipped_G) <= MOST_RESAMPLES
    return at_least / len(drawn_B) if is_exact else (at_least + 1) / (len(drawn_B) + 1)


@lru_cache(maxsize=4)
def _signs(num: int, seed: int) -> NDArray[np.float64]:
    """-> B x num of 1 and -1: every way, or drawn ones."""
    if 2**num <= MOST_RESAMPLES:
        return np.array(list(product((-1.0, 1.0), repeat=num)))
    drawn_BG = np.random.default_rng(seed).integers(0, 2, (MOST_RESAMPLES, num))
    return drawn_BG.astype(np.float64) * 2 - 1
