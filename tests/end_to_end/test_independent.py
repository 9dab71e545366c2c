"""Each statistic against another computation of it, on the embedded study's real scores and on generated ones."""

import math

import numpy as np
import pytest
from support import samples
from support.samples import RATES, generated

from ablate.results.axes import Axis, bend_weights, weights
from ablate.results.multiple_comparisons import (
    Joint,
    adjusted_interval,
    best,
    holm,
    may_be_best,
    resampled,
    simultaneous_alpha,
    simultaneous_level,
)
from ablate.results.paired import Aligned, contrast, linear
from ablate.results.sign_tests import flips, sign_flip_p

EVERY = samples.every()


@pytest.fixture(params=EVERY)
def scores(request):
    return EVERY[request.param]


def aligned(scores, row, seeds=slice(None)):
    return Aligned(scores.rows[row][seeds], scores.rows[0][seeds], scores.group_N, True)


def clustered(values, group_N):
    """-> mean, its cluster-robust SE and p by least squares."""
    import statsmodels.api as sm

    fitted = sm.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": group_N, "use_correction": True}, use_t=True
    )
    return float(fitted.params[0]), float(fitted.bse[0]), float(fitted.pvalues[0])


# one seed


def test_a_difference_its_error_and_p_are_those_of_least_squares(scores):
    for row in range(1, 5):
        estimate = contrast(aligned(scores, row, slice(1)))
        value, se, p = clustered(scores.rows[row][0] - scores.rows[0][0], scores.group_N)
        assert (estimate.value, estimate.se) == pytest.approx((value, se))
        assert estimate.p == pytest.approx(p, rel=1e-6, abs=1e-300)


def test_mcnemar_is_statsmodels(scores):
    from statsmodels.stats.contingency_tables import mcnemar

    for row in range(1, 5):
        arm, control = scores.rows[row][0], scores.rows[0][0]
        flipped = flips(aligned(scores, row, slice(1)))
        if not np.isin(arm, (0, 1)).all():
            assert flipped is None
            continue
        assert (flipped.won, flipped.lost) == (((arm == 1) & (control == 0)).sum(), ((arm == 0) & (control == 1)).sum())
        exact = mcnemar([[0, flipped.won], [flipped.lost, 0]], exact=True).pvalue
        point = math.comb(flipped.won + flipped.lost, flipped.won) / 2 ** (flipped.won + flipped.lost)
        few = flipped.won + flipped.lost < 25
        assert flipped.p == pytest.approx(exact if few else exact - point, rel=1e-6)


def test_flipped_signs_by_hand_give_the_same_p(scores):
    draw = np.random.default_rng(1)
    sums = np.bincount(scores.group_N, scores.rows[3][0] - scores.rows[0][0])
    signs = draw.choice([-1, 1], size=(20_000, len(sums)))
    by_hand = np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9)
    assert sign_flip_p(aligned(scores, 3, slice(1))) == pytest.approx(by_hand, abs=0.02)


def test_holm_over_a_tables_rows_is_statsmodels(scores):
    from statsmodels.stats.multitest import multipletests

    p = [contrast(aligned(scores, row)).p for row in range(1, 5)]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())


# several seeds


def variance_by_anova(scores, weighted):
    """-> V of sum of w * mean, and its df: each part from statsmodels."""
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    num_seeds, num = scores.rows[0].shape
    v_s = v_e = 0.0
    combined = np.zeros(num)
    for w, row in zip(weighted, scores.rows, strict=False):
        seed, question = np.indices(row.shape)
        table = anova_lm(
            ols("y ~ C(seed) + C(question)", pandas.DataFrame(
                {"y": row.ravel(), "seed": seed.ravel(), "question": question.ravel()}
            )).fit()
        )  # fmt: skip
        v_s += w**2 * table.mean_sq["C(seed)"] / num / num_seeds
        v_e += w**2 * table.mean_sq["Residual"] / num / num_seeds
        combined += w * row.mean(0)
    v_q = clustered(combined, scores.group_N)[1] ** 2
    num_groups = len(set(scores.group_N))
    v_s, own = max(v_s, 0.1 * v_e), max(v_q - v_e, 0)
    share = 2 * v_s / (2 * v_s + own)
    squares = [w**2 for w in weighted]
    df_s = (num_seeds - 1) * sum(squares) ** 2 / sum(x**2 for x in squares)
    return v_s + own, 1 / (share**2 / df_s + (1 - share) ** 2 / (num_groups - 1))


@pytest.mark.parametrize("name", ["tiny_letters/acc", "tiny_truth/acc", "generated 0"])
@pytest.mark.parametrize("kind", ["difference", "trend"])
def test_the_parts_of_the_variance_over_seeds_are_those_of_an_anova(name, kind):
    scores = EVERY[name]
    weighted = [-1.0, 0.0, 1.0] if kind == "difference" else [0.0, *weights(Axis("distill.lr", RATES))]
    used = [number for number, w in enumerate(weighted) if w]
    scores = scores._replace(rows=[row[:, :100] for row in scores.rows], group_N=scores.group_N[:100])
    scores = scores._replace(group_N=np.unique(scores.group_N, return_inverse=True)[1])
    arms, chosen = [scores.rows[number] for number in used], [weighted[number] for number in used]
    estimate = linear(arms, chosen, scores.group_N, True, [True] * len(arms))
    variance, df = variance_by_anova(scores._replace(rows=arms), chosen)
    assert estimate.se == pytest.approx(math.sqrt(variance))
    assert estimate.df == pytest.approx(df)


SIMULATED = 2000
"""Studies: one standard error of the coverage is 0.5 %."""


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.2])
@pytest.mark.parametrize(
    ("is_clustered", "is_trend"),
    [(True, False), (False, False), (True, True)],
    ids=["clusters, 0/1", "0/1", "trend, clusters, 0/1"],
)
def test_an_interval_over_seeds_holds_the_truth_as_often_as_it_says(num_seeds, seed_sd, is_clustered, is_trend):
    draw, held = np.random.default_rng(7), 0
    weighted = weights(Axis("distill.lr", RATES)) if is_trend else [1.0, -1.0]
    options = {"num_seeds": num_seeds, "num_rows": len(weighted), "seed_sd": seed_sd}
    for _ in range(SIMULATED):
        scores = generated(draw, num_groups=40 if is_clustered else 200, **options)
        low, high = linear(scores.rows, weighted, scores.group_N, is_clustered, [True] * len(weighted)).interval()
        held += low <= 0 <= high
    print(f"{num_seeds} seeds, sd {seed_sd}: {held / SIMULATED:.4f}")
    assert 0.935 <= held / SIMULATED <= 0.965


@pytest.mark.parametrize("num_seeds", [(2, 3), (2, 5)])
def test_arms_of_unequal_numbers_of_seeds_are_not_taken_for_surer_than_they_are(num_seeds):
    draw, held = np.random.default_rng(8), 0
    for _ in range(SIMULATED):
        scores = generated(draw, num_seeds=5, num_rows=2, seed_sd=0.5)
        arms = [row[:num] for row, num in zip(scores.rows, num_seeds, strict=True)]
        low, high = linear(arms, [1.0, -1.0], scores.group_N, True, [True, True]).interval()
        held += low <= 0 <= high
    assert held / SIMULATED >= 0.945


# a trend


def test_a_trend_is_the_mean_of_lines_drawn_through_each_question(scores):
    x = np.log10(RATES)
    slopes = np.polyfit(x, np.stack([row[0] for row in scores.rows[1:]]), 1)[0]
    value, se, p = clustered(slopes * (x.max() - x.min()), scores.group_N)
    weighted = weights(Axis("distill.lr", RATES))
    arms = [row[:1] for row in scores.rows[1:]]
    estimate = linear(arms, weighted, scores.group_N, True, [True] * 4)
    assert (estimate.value, estimate.se, estimate.p) == pytest.approx((value, se, p), abs=1e-12)


def test_a_bend_is_the_square_that_least_squares_adds_to_a_line(scores):
    x = np.log10(RATES)
    squares = np.polyfit(x, np.stack([row[0] for row in scores.rows[1:]]), 2)[0]
    value, se, p = clustered(squares, scores.group_N)
    bend = bend_weights(Axis("distill.lr", RATES))
    estimate = linear([row[:1] for row in scores.rows[1:]], bend, scores.group_N, True, [True] * 4)
    assert (estimate.value / estimate.se, estimate.p) == pytest.approx((value / se, p), abs=1e-9)


def test_other_values_than_learning_rates_are_no_logarithms():
    ratios = (0.25, 0.5, 0.75, 1.0)
    y = np.array([0.1, 0.4, 0.2, 0.6])
    expected = np.polyfit(ratios, y, 1)[0] * 0.75
    assert np.dot(weights(Axis("distill.kd_ratio", ratios)), y) == pytest.approx(expected)


# the best


def test_the_probability_of_being_best_is_that_of_every_possible_resample():
    from itertools import product

    draw = np.random.default_rng(5)
    group_N = np.array([0, 0, 1, 1, 1, 2, 3])
    rows = [draw.integers(2, size=7).astype(float) for _ in range(3)]
    wins = np.zeros(3)
    for drawn in product(range(4), repeat=4):
        taken = np.concatenate([np.flatnonzero(group_N == group) for group in drawn])
        means = np.array([row[taken].mean() for row in rows])
        leaders = np.isclose(means, means.max())
        wins += leaders / leaders.sum()
    assert best(resampled(rows, group_N)) == pytest.approx(wins / 4**4, abs=0.025)


def test_a_bootstrap_by_hand_gives_the_same_probability_of_being_best(scores):
    draw = np.random.default_rng(11)
    means = [row.mean(0) for row in scores.rows]
    groups = [np.flatnonzero(scores.group_N == group) for group in range(scores.group_N.max() + 1)]
    wins = np.zeros(5)
    for _ in range(1500):
        taken = np.concatenate([groups[number] for number in draw.integers(len(groups), size=len(groups))])
        drawn = np.array([row_N[taken].mean() for row_N in means])
        leaders = np.isclose(drawn, drawn.max())
        wins += leaders / leaders.sum()
    probabilities = best(resampled(means, scores.group_N))
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities == pytest.approx(wins / 1500, abs=0.05)


def in_the_set(scores):
    """-> of each row whether it may be the best."""
    numbers = range(len(scores.rows))
    ahead = [
        [contrast(Aligned(scores.rows[other], scores.rows[r], scores.group_N, True)) for other in numbers if other != r]
        for r in numbers
    ]
    return may_be_best(resampled([row.mean(0) for row in scores.rows], scores.group_N), ahead)


def test_rows_that_may_be_the_best_are_those_of_a_normal_law(scores):
    """With one seed: c from the multivariate normal of the clusters' sums, in place of resamples."""
    from scipy.optimize import brentq
    from scipy.stats import multivariate_normal, norm, t

    one_seed = scores._replace(rows=[row[:1] for row in scores.rows])
    expected = []
    for r in range(5):
        d = np.stack([one_seed.rows[other][0] - one_seed.rows[r][0] for other in range(5) if other != r])
        sums = np.stack([np.bincount(one_seed.group_N, one - one.mean()) for one in d])
        law = multivariate_normal(np.zeros(4), np.corrcoef(sums), allow_singular=True, seed=0)
        c = brentq(lambda x, law=law: law.cdf(np.full(4, x)) - 0.95, 1.0, 3.5, xtol=0.002)
        limit = t.ppf(norm.cdf(c), one_seed.group_N.max())
        expected.append(not any(value > limit * se for value, se, _ in (clustered(one, one_seed.group_N) for one in d)))
    assert in_the_set(one_seed) == expected


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_set_holds_the_best_row_as_often_as_it_says(num_seeds):
    draw, count, num = np.random.default_rng(3), 0, 120
    for _ in range(num):
        scores = generated(draw, num_rows=4, num_seeds=num_seeds, seed_sd=0.0 if num_seeds == 1 else 0.1)
        count += in_the_set(scores)[0]  # of equal rows any is the best
    assert count / num >= 0.91  # of 0.95, less two standard errors


def test_a_row_far_behind_is_never_in_the_set():
    scores = generated(4, num_rows=3)
    assert in_the_set(scores._replace(rows=[*scores.rows[:2], scores.rows[2] * 0])) == [True, True, False]


def test_intervals_that_hold_together_are_those_of_a_normal_law(scores):
    from scipy.optimize import brentq
    from scipy.stats import multivariate_normal, norm

    pairs = [aligned(scores, row, slice(1)) for row in range(1, 5)]
    estimates = [contrast(pair) for pair in pairs]
    of_clusters = [np.bincount(scores.group_N, pair.differences) for pair in pairs]
    joint = Joint(of_clusters, scores.group_N, estimates, [0.25] * 4)
    sums = np.stack([np.bincount(scores.group_N, pair.differences - pair.differences.mean()) for pair in pairs])
    law = multivariate_normal(np.zeros(4), np.corrcoef(sums), allow_singular=True, seed=0)
    c = brentq(lambda x: law.cdf(np.full(4, x), lower_limit=np.full(4, -x)) - 0.95, 1.9, 3.5, xtol=0.002)
    level = simultaneous_level(simultaneous_alpha([joint]), 0.25)
    assert norm.ppf((1 + level) / 2) == pytest.approx(c, abs=0.12)
    low, high = adjusted_interval(estimates[0], level)
    assert low < estimates[0].interval()[0] < estimates[0].interval()[1] < high
