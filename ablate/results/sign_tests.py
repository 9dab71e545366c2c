"""Checks of a difference that decide nothing: McNemar's of 0/1 scores, and flipped signs of all others."""

import math
from typing import NamedTuple

import numpy as np

from ablate.results.paired import EXACT_BELOW, Aligned

MOST_RESAMPLES = 9_999


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
    """-> p of no difference when each cluster's difference might as well have had the other sign; NaN of one."""
    from scipy.stats import permutation_test

    sums_G = np.bincount(aligned.group_N, aligned.differences)
    if len(sums_G) < 2:
        return math.nan
    return float(
        permutation_test(
            (sums_G,),
            lambda sample, axis: sample.mean(axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=MOST_RESAMPLES,
            batch=1000,
            random_state=np.random.default_rng(seed),
        ).pvalue
    )
