"""Arms on the same questions, one against the control or several along an axis: their difference and its error."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.question_scores import NotComparable, Questions, QuestionScores

# S seeds of an arm, N questions, G clusters; d_N: arm less control, averaged over seeds

Floats = NDArray[np.float64]
SEED_WEIGHT = 2
LEAST_SEED_SHARE = 0.1
"""V_s holds V_e: two seeds whose means happen to be equal must not count as a training without noise."""
EXACT_BELOW = 25
"""Questions on which two arms differ: fewer are tested exactly."""
ROUNDING = 1e-12
"""What weights that are no binary fractions leave of equal scores."""


class Aligned(NamedTuple):
    """Two arms' scores on the same questions, in one order."""

    arm_SN: Floats
    control_SN: Floats
    group_N: NDArray[np.int64]
    """Number of each question's cluster; its own where the task knows none."""
    has_clusters: bool

    @property
    def differences(self) -> Floats:
        """N: arm less control, each averaged over its seeds."""
        difference: Floats = self.arm_SN.mean(0) - self.control_SN.mean(0)
        return difference

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return is_binary(self.arm_SN) and is_binary(self.control_SN)


class Contrast(NamedTuple):
    """Arm less control."""

    value: float
    se: float
    """NaN where it is not defined: one question, one cluster."""
    df: float
    """Of t."""
    n: int
    clusters: int | None
    """None where the questions count as independent."""
    has_seed_noise: bool
    """Whether the error holds the noise of training too; else that of the choice of questions alone."""
    num_differing: int | None = None
    """Questions, or clusters, in which 0/1 scores differ; None of other scores."""
    reach: float = 1.0
    """The largest difference that 0/1 scores can have on one question: 1 of two arms, or of two averages."""

    @property
    def p(self) -> float:
        """Two-sided, of no difference. 1 where nothing differs anywhere."""
        if self.se == 0:
            return 1.0 if self.value == 0 else 0.0
        return 2 * t_tail(abs(self.value) / self.se, self.df)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """-> value -+ t(df) SE; where 0/1 scores differ nowhere, as far as the exact limit of `unseen`."""
        half = self.half_width(level)
        return self.value - half, self.value + half

    def half_width(self, level: float) -> float:
        return t_quantile((1 + level) / 2, self.df) * self.se if self.se else self.unseen(level)

    def unseen(self, level: float) -> float:
        """-> by how much the share of differing questions may exceed that of those asked, each by all of `reach`.

        Exact, from the binomial law (Clopper and Pearson 1934): of n questions without a difference about 3/n at 90 %.
        0 of scores that are not 0 or 1.
        """
        from scipy.stats import beta

        num, units = self.num_differing, self.clusters or self.n
        if num is None or num == units:
            return 0.0
        return self.reach * (float(beta.ppf((1 + level) / 2, num + 1, units - num)) - num / units)

    @property
    def equivalence_interval(self) -> tuple[float, float]:
        """-> the 90 % interval of this comparison alone, which two one-sided 5 % tests look at (Schuirmann 1987).

        An error estimated from few differing questions is often far too small: then the exact limit must say so too.
        """
        is_few = self.num_differing is not None and self.num_differing < EXACT_BELOW
        half = max(self.half_width(0.9), self.unseen(0.9) if is_few else 0.0)
        return self.value - half, self.value + half

    def is_within(self, delta: float) -> bool:
        """Whether the difference is told to be smaller than `delta`."""
        low, high = self.equivalence_interval
        return -delta < low and high < delta

    @property
    def visible(self) -> float:
        """The smallest difference that would be seen with 80 % power, two-sided 5 %: (1.96 + 0.84) SE."""
        return 2.80 * self.se

    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {name: value for name, value in self._asdict().items() if name != "reach"}


def align(arm: Sequence[QuestionScores], control: Sequence[QuestionScores]) -> Aligned:
    """-> both arms' answers, one a seed, side by side. Raises NotComparable unless all answered the same questions."""
    first = control[0].questions
    arm_SN, control_SN = (np.stack([_in_order(seed, first) for seed in seeds]) for seeds in (arm, control))
    return Aligned(arm_SN, control_SN, _groups(first), any(cluster is not None for cluster in first.clusters))


def _in_order(answers: QuestionScores, first: Questions) -> Floats:
    """-> N scores in the order of other questions, which must be the same."""
    scores_N, questions = np.array(answers.scores, float), answers.questions
    if questions is first:
        return scores_N
    place = {number: place for place, number in enumerate(questions.numbers)}
    if place.keys() != set(first.numbers):
        raise NotComparable("other questions")
    order = [place[number] for number in first.numbers]
    if any(questions.hashes[place] != text for place, text in zip(order, first.hashes, strict=True)):
        raise NotComparable("the questions have another text")
    return scores_N[order]


@cache
def _groups(questions: Questions) -> NDArray[np.int64]:
    """-> number of each question's cluster."""
    numbers: dict[str | int, int] = {}  # clusters are named by text, a question without one by its number
    names = (
        number if cluster is None else cluster
        for number, cluster in zip(questions.numbers, questions.clusters, strict=True)
    )
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def contrast(aligned: Aligned, *, is_trained: tuple[bool, bool] = (True, True)) -> Contrast:
    """-> mean(d) with its error, as `linear` has it; `is_trained`: whether each arm has a training with a seed."""
    arms = (aligned.arm_SN, aligned.control_SN)
    return linear(arms, (1.0, -1.0), aligned.group_N, aligned.has_clusters, is_trained)


def linear(
    arms: Sequence[Floats],
    weights: Sequence[float],
    group_N: NDArray[np.int64],
    has_clusters: bool,
    is_trained: Sequence[bool],
) -> Contrast:
    """-> sum over arms of w * its mean score, with its error; of arms (S x N each) that answered the same questions.

    `is_trained`: whether each arm has a training, whose seed moves its scores. d_N: sum of w * its mean over seeds.

    One seed: SE of the mean of d_N over questions, or over clusters; n - 1 or G - 1 degrees of freedom.

    Several seeds of every trained arm: V = V_s + max(V_q - V_e, 0). V_q: variance of mean(d_N) over questions
    (clusters). V_s, V_e: `_seed_variance`. df: `_satterthwaite_df`.
    """
    d_N = weighted(arms, weights)
    value, v_q, units = float(np.mean(d_N)), _question_variance(d_N, group_N), _num_units(group_N)
    trained = [
        _Trained(w**2 / len(scores), scores)
        for w, scores, is_in in zip(weights, arms, is_trained, strict=True)
        if is_in
    ]
    clusters = units if has_clusters else None
    about = (len(group_N), clusters)
    differing = (_num_differing(d_N, group_N) if all(map(is_binary, arms)) else None, _reach(weights))
    if not trained or any(len(arm.scores_SN) < 2 for arm in trained):
        return Contrast(value, math.sqrt(v_q), units - 1, *about, not trained, *differing)
    v_s, v_e = _seed_variance(trained, len(group_N))
    v_own = max(v_q - v_e, 0.0)
    df = _satterthwaite_df(trained, v_s, v_own, units)
    return Contrast(value, math.sqrt(v_s + v_own), df, *about, True, *differing)


def weighted(arms: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """-> d_N: on each question the sum over arms of w * the score, averaged over its seeds."""
    d_N: Floats = np.add.reduce([w * scores_SN.mean(0) for w, scores_SN in zip(weights, arms, strict=True)])
    return d_N


def is_binary(scores_SN: Floats) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores_SN, (0.0, 1.0)).all())


def _reach(weights: Sequence[float]) -> float:
    up, down = (math.fsum(sign * w for w in weights if sign * w > 0) for sign in (1, -1))
    return max(up, down)


class _Trained(NamedTuple):
    """An arm whose seed moves its scores."""

    a: float
    """w^2 / S: what the variance of one seed's score counts for in that of the contrast."""
    scores_SN: Floats


def _seed_variance(trained: Sequence[_Trained], n: int) -> tuple[float, float]:
    """-> V_s, V_e of a contrast over n questions.

    V_s: sum over arms of w^2 var_S(seed's mean) / S, the noise of training. It holds, as the variance over questions
    does, V_e: sum over arms of w^2 MS_residual / (n S), the residual mean square of questions x seeds
    (Searle, Casella, McCulloch 1992: two-way crossed, one observation a cell). V_s counts as a tenth of V_e at least.
    """
    v_s = sum(arm.a * float(arm.scores_SN.mean(1).var(ddof=1)) for arm in trained)
    v_e = sum(arm.a * float(residual(arm.scores_SN)) / n for arm in trained)
    return max(v_s, LEAST_SEED_SHARE * v_e), v_e


def _satterthwaite_df(trained: Sequence[_Trained], v_s: float, v_own: float, units: int) -> float:
    """-> degrees of freedom of V_s + V_own, where V_own = max(V_q - V_e, 0) is the noise of questions alone.

    1/df = u^2 / df_s + (1 - u)^2 / (units - 1) with u = 2 V_s / (2 V_s + V_own), and
    df_s = (sum a)^2 / sum(a^2 / (S - 1)), which is 2S - 2 for two arms: Satterthwaite's (1946), but for the 2, and as
    if all arms had the same seed noise. Of few seeds V_s is often far too small, and his df then far too large;
    docs/decisions.md.
    """
    share = SEED_WEIGHT * v_s / (SEED_WEIGHT * v_s + v_own) if v_s else 0.0
    df_s = sum(arm.a for arm in trained) ** 2 / sum(arm.a**2 / (len(arm.scores_SN) - 1) for arm in trained)
    inverse = share**2 / df_s + (1 - share) ** 2 / max(units - 1, 1)
    return 1 / inverse


def _num_units(group_N: NDArray[np.int64]) -> int:
    return int(group_N.max()) + 1


def _num_differing(d_N: Floats, group_N: NDArray[np.int64]) -> int:
    return int((np.bincount(group_N, np.abs(d_N) > ROUNDING) > 0).sum())


def _question_variance(d_N: Floats, group_N: NDArray[np.int64]) -> float:
    """Of the mean. G/(G-1) sum_g (sum_{i in g} (d_i - mean))^2 / n^2 (Cameron, Gelbach, Miller 2011).

    With clusters of one question it is var(d, ddof=1) / n (Miller 2024, 2411.00640).
    """
    sums_G = np.bincount(group_N, d_N - d_N.mean())
    if len(sums_G) < 2:
        return math.nan
    return float(len(sums_G) / (len(sums_G) - 1) * (sums_G**2).sum() / d_N.size**2)


def residual(scores_SN: Floats) -> Floats:
    """-> mean square of what neither question nor seed explains; of ... x S x N one number each."""
    seeds, num = scores_SN.shape[-2:]
    by_question, by_seed = scores_SN.mean(-2, keepdims=True), scores_SN.mean(-1, keepdims=True)
    rest = scores_SN - by_question - by_seed + scores_SN.mean((-2, -1), keepdims=True)
    squares: Floats = (rest**2).sum((-2, -1)) / ((seeds - 1) * max(num - 1, 1))
    return squares


def t_tail(t: float, df: float) -> float:
    """-> of Student's t, above t."""
    from scipy.stats import norm
    from scipy.stats import t as student

    return float(norm.sf(t) if math.isinf(df) else student.sf(t, df))


def t_quantile(q: float, df: float) -> float:
    from scipy.stats import norm
    from scipy.stats import t as student

    return float(norm.ppf(q) if math.isinf(df) else student.ppf(q, df))
