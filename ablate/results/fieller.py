"""A ratio of two differences between three arms that answered the same questions, with Fieller's interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.paired import LEAST_SEED_SHARE, SEED_WEIGHT, Floats, residual

# A arms, always in this order: row, control, teacher. S seeds of an arm, N questions, G clusters, K tasks.
# "...": studies at once, in a simulation; none in a report.

HALVINGS = 50


class Task(NamedTuple):
    """The scores of one task, by one metric."""

    scores: tuple[Floats, Floats, Floats]
    """Of each arm ... x S x N."""
    group_N: NDArray[np.int64]
    """Number of each question's cluster."""


class Estimate(NamedTuple):
    """A sum of weight * mean score."""

    value: Floats
    variance: Floats
    df: Floats
    """Of t."""


class Ratio(NamedTuple):
    """(row - control) / (teacher - control)."""

    value: Floats
    low: Floats
    """NaN where the interval would be unbounded: the denominator cannot be told from 0."""
    high: Floats


class Moments(NamedTuple):
    """Of the arms' mean scores, averaged over tasks: all that a contrast of them and its error follow from."""

    seeds: tuple[Floats, ...]
    """Of each arm ... x S: the mean score of each seed."""
    questions_KAA: Floats
    """... x K x A x A: what a task's questions add to the covariance of the arms' means."""
    residual_A: Floats
    """... x A: MS_residual / (n S) of questions x seeds; 0 of an arm whose seed is not counted."""
    df_K: Floats
    """Clusters less one."""
    is_counted_A: NDArray[np.bool_]
    """Whether an arm's seed noise is: it is trained, and every such arm has several seeds."""

    def contrast(self, weights_A: Floats) -> Estimate:
        """-> the contrast with the error and the degrees of freedom that `paired.linear` gives; weights: ... x A.

        Over several tasks V_q is the sum of theirs, for their questions are independent, and its degrees of freedom are
        Satterthwaite's (1946); V_s is that of a seed's mean over tasks, which share a training.
        """
        means_A = np.stack([seeds.mean(-1) for seeds in self.seeds], -1)
        of_task_K = np.einsum("...a,...kab,...b->...k", weights_A, self.questions_KAA, weights_A)
        v_q = of_task_K.sum(-1)
        v_e = (weights_A**2 * self.residual_A).sum(-1)
        v_s = np.maximum((weights_A**2 * self._of_seeds).sum(-1), LEAST_SEED_SHARE * v_e)
        v_own = np.maximum(v_q - v_e, 0.0)
        inverse_q = _ratio((of_task_K**2 / self.df_K).sum(-1), v_q**2)
        share = _ratio(SEED_WEIGHT * v_s, SEED_WEIGHT * v_s + v_own)
        inverse = share**2 * self._inverse_df_s(weights_A) + (1 - share) ** 2 * inverse_q
        return Estimate((weights_A * means_A).sum(-1), v_s + v_own, 1 / np.maximum(inverse, 1e-12))

    @property
    def _of_seeds(self) -> Floats:
        """... x A: var_S(seed's mean) / S."""
        known = zip(self.seeds, self.is_counted_A, strict=True)
        return np.stack(
            [s.var(-1, ddof=1) / s.shape[-1] if is_in else np.zeros(s.shape[:-1]) for s, is_in in known], -1
        )

    def _inverse_df_s(self, weights_A: Floats) -> Floats:
        num_A = np.array([seeds.shape[-1] for seeds in self.seeds])
        a_A = weights_A**2 / num_A * self.is_counted_A
        return _ratio((a_A**2 / np.maximum(num_A - 1, 1)).sum(-1), a_A.sum(-1) ** 2)


def moments(tasks: Sequence[Task], is_trained: Sequence[bool]) -> Moments:
    """-> of the mean over tasks; `is_trained`: whether each arm has a training, whose seed moves its scores.

    An arm that is the same model whatever the seed (a teacher, of which all rows have learnt) is not trained.
    """
    num_seeds = [scores.shape[-2] for scores in tasks[0].scores]
    is_seen = all(num > 1 for num, is_in in zip(num_seeds, is_trained, strict=True) if is_in)
    is_counted_A = np.array([is_seen and is_in for is_in in is_trained])
    parts = [_of_task(task, is_counted_A) for task in tasks]
    num = len(tasks)
    seeds = tuple(np.mean([part.seeds[arm] for part in parts], 0) for arm in range(3))
    return Moments(
        seeds,
        np.concatenate([part.questions_KAA for part in parts], -3) / num**2,
        np.sum([part.residual_A for part in parts], 0) / num**2,
        np.concatenate([part.df_K for part in parts]),
        is_counted_A,
    )


def fieller(given: Moments, level: float = 0.95) -> Ratio:
    """-> the ratio, and all values of it that a t test does not refuse at the level (Fieller 1954).

    theta is refused where |row - control - theta (teacher - control)| > t SE, by the error of that very contrast, in
    which the control counts once. So the interval leaves out 0 where row and control differ by more than t SE, and 1
    where row and teacher do. The ends are found by halving, for with several seeds V is no polynomial of theta.
    """
    n, d = (given.contrast(np.array(weights)) for weights in ((1.0, -1.0, 0.0), (0.0, -1.0, 1.0)))
    is_bounded = d.value**2 > _limit(d, level)
    value = np.where(is_bounded, _ratio(n.value, d.value), np.nan)
    return Ratio(value, *(_end(given, value, side, level) for side in (-1.0, 1.0)))


def _end(given: Moments, value: Floats, side: float, level: float) -> Floats:
    """-> where theta is refused, going from the estimate to one side; x in 0..1 is x / (1 - x) away from it."""
    inside, outside = np.zeros_like(value), np.ones_like(value)
    for _ in range(HALVINGS):
        x = (inside + outside) / 2
        theta = value + side * x / (1 - x)
        tried = given.contrast(np.stack([np.ones_like(theta), theta - 1, -theta], -1))
        is_in = tried.value**2 <= _limit(tried, level)
        inside, outside = np.where(is_in, x, inside), np.where(is_in, outside, x)
    return value + side * inside / (1 - inside)


def _limit(estimate: Estimate, level: float) -> Floats:
    """-> (t SE)^2."""
    from scipy.special import stdtrit

    limit: Floats = stdtrit(estimate.df, (1 + level) / 2) ** 2 * estimate.variance
    return limit


def _of_task(task: Task, is_counted_A: NDArray[np.bool_]) -> Moments:
    means_AN = np.stack([scores.mean(-2) for scores in task.scores], -2)
    order = np.argsort(task.group_N, kind="stable")
    begins = np.flatnonzero(np.diff(task.group_N[order], prepend=-1))
    sums_AG = np.add.reduceat((means_AN - means_AN.mean(-1, keepdims=True))[..., order], begins, -1)
    num, units = len(order), len(begins)
    correction = units / (units - 1) if units > 1 else np.nan
    questions_AA = correction * sums_AG @ np.swapaxes(sums_AG, -1, -2) / num**2
    arms = zip(task.scores, is_counted_A, strict=True)
    residuals = [
        residual(scores) / (scores.shape[-2] * num) if is_in else np.zeros(scores.shape[:-2]) for scores, is_in in arms
    ]
    seeds = tuple(scores.mean(-1) for scores in task.scores)
    return Moments(
        seeds, questions_AA[..., None, :, :], np.stack(residuals, -1), np.array([max(units - 1.0, 1.0)]), is_counted_A
    )


def _ratio(one: Floats, other: Floats) -> Floats:
    """-> one / other; 0 where the other is."""
    return np.divide(one, other, out=np.zeros(np.broadcast(one, other).shape), where=other != 0)
