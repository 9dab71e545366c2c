"""Each statistic against another computation of it; intervals and verdicts against simulated studies."""

import math
from itertools import product

import numpy as np
import pytest

from ablate.results.multiple_comparisons import (
    Joint,
    adjusted_interval,
    best,
    holm,
    resampled,
    simultaneous_alpha,
    simultaneous_level,
)
from ablate.results.paired import Aligned, Contrast, contrast, linear
from ablate.results.sign_tests import flips, sign_flip_p
from ablate.results.verdicts import verdict

N = 400


def aligned(arm_SN, control_SN, group_N=None):
    arm_SN, control_SN = np.atleast_2d(arm_SN).astype(float), np.atleast_2d(control_SN).astype(float)
    groups = np.arange(arm_SN.shape[1]) if group_N is None else np.unique(group_N, return_inverse=True)[1]
    return Aligned(arm_SN, control_SN, groups, group_N is not None)


def scores(seed, num=N, num_groups=60):
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=num)
    arms = [(hard + draw.normal(scale=0.5, size=num) > shift).astype(float) for shift in (0.0, 0.1)]
    return aligned(*arms, draw.integers(num_groups, size=num))


# one contrast


@pytest.mark.parametrize("seed", range(5))
def test_a_clustered_error_and_its_p_are_those_of_least_squares(seed):
    import statsmodels.api as sm

    scored = scores(seed)
    fitted = sm.OLS(scored.differences, np.ones(N)).fit(
        cov_type="cluster", cov_kwds={"groups": scored.group_N, "use_correction": True}, use_t=True
    )
    ours = contrast(scored)
    groups = ours.clusters
    assert ours.se == pytest.approx(fitted.bse[0], rel=1e-9)
    assert ours.df == fitted.df_resid_inference == groups - 1
    low, high = ours.interval()
    assert (low + high) / 2 == pytest.approx(fitted.params[0])


@pytest.mark.parametrize("seed", range(5))
def test_flips_are_tested_as_mcnemar(seed):
    from statsmodels.stats.contingency_tables import mcnemar

    draw = np.random.default_rng(seed)
    few = aligned(*(draw.random((2, 30)) > 0.5))
    flipped = flips(few)
    table = [[0, flipped.won], [flipped.lost, 0]]
    assert flipped.won + flipped.lost < 25
    assert flipped.p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_many_flips_are_tested_by_mid_p():
    won, lost = 40, 22
    many = aligned([1] * won + [0] * lost + [1] * 9, [0] * won + [1] * lost + [1] * 9)
    num = won + lost
    tail = sum(math.comb(num, k) for k in range(lost + 1)) / 2**num
    assert flips(many).p == pytest.approx(2 * tail - math.comb(num, lost) / 2**num)


def test_scores_between_0_and_1_have_no_flips_and_several_seeds_neither():
    assert flips(aligned([0.5, 1], [0, 1])) is None
    assert flips(aligned([[0, 1], [1, 1]], [[0, 1], [0, 1]])) is None


def test_signs_are_flipped_cluster_by_cluster():
    d, groups = np.array([0.3, 0.1, -0.2, 0.4, 0.25, 0.05]), np.array([0, 0, 1, 1, 2, 3])
    sums = np.bincount(groups, d)
    means = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=4)]
    exact = np.mean([mean >= abs(sums.sum()) - 1e-12 for mean in means])
    assert sign_flip_p(aligned(d, np.zeros(6), groups)) == pytest.approx(exact)


@pytest.mark.parametrize("num", [200, 1001])
def test_signs_of_many_questions_are_flipped_as_scipy_flips_them(num):
    from scipy.stats import permutation_test

    draw = np.random.default_rng(6)
    d = draw.normal(0.05, size=num) * (draw.random(num) < 0.999)
    reference = permutation_test(
        (d,), lambda sample, axis: sample.mean(axis), permutation_type="samples", vectorized=True, rng=draw
    ).pvalue
    assert sign_flip_p(aligned(d, np.zeros(num))) == pytest.approx(reference, abs=0.015)


def test_one_question_says_nothing():
    difference = contrast(aligned([0.5], [0.25]))
    assert (difference.value, math.isnan(difference.se), math.isnan(difference.p)) == (0.25, True, True)
    assert math.isnan(sign_flip_p(aligned([0.5], [0.25])))


def test_what_differs_nowhere_has_no_error_and_no_effect():
    difference = contrast(aligned([0.5, 0.25, 1], [0.5, 0.25, 1]))
    assert (difference.value, difference.se, difference.p, difference.interval()) == (0, 0, 1, (0, 0))


def test_the_smallest_visible_difference_is_seen_four_times_in_five():
    draw = np.random.default_rng(0)
    difference = contrast(aligned(draw.normal(size=N), np.zeros(N)))
    seen = np.mean([abs(draw.normal(difference.visible, difference.se)) > 1.96 * difference.se for _ in range(4000)])
    assert seen == pytest.approx(0.8, abs=0.02)


# several seeds


def trained(draw, num_seeds, *, seed_sd, num=N):
    """-> S x N scores of a recipe without an effect: its own questions, its seeds, and the rest."""
    own = draw.normal(scale=0.3, size=num)
    return own + draw.normal(scale=seed_sd, size=(num_seeds, 1)) + draw.normal(scale=0.4, size=(num_seeds, num))


def test_the_parts_of_the_variance_are_those_of_the_formula():
    draw = np.random.default_rng(3)
    arm, control = (trained(draw, 3, seed_sd=0.02) for _ in range(2))
    difference = contrast(aligned(arm, control))
    d = arm.mean(0) - control.mean(0)
    v_q = d.var(ddof=1) / N
    v_s = arm.mean(1).var(ddof=1) / 3 + control.mean(1).var(ddof=1) / 3
    v_e = 0.0
    for score_SN in (arm, control):
        rest = [
            [score_SN[k, i] - score_SN[:, i].mean() - score_SN[k].mean() + score_SN.mean() for i in range(N)]
            for k in range(3)
        ]
        v_e += np.square(rest).sum() / (2 * (N - 1)) / (3 * N)
    v_s, own = max(v_s, 0.1 * v_e), max(v_q - v_e, 0)
    share = 2 * v_s / (2 * v_s + own)
    assert difference.se == pytest.approx(math.sqrt(v_s + own))
    assert difference.df == pytest.approx(1 / (share**2 / 4 + (1 - share) ** 2 / (N - 1)))


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_an_interval_over_seeds_holds_the_truth_as_often_as_it_says(num_seeds, seed_sd):
    draw = np.random.default_rng(num_seeds)
    held = []
    for _ in range(4000):
        difference = contrast(aligned(*(trained(draw, num_seeds, seed_sd=seed_sd, num=100) for _ in range(2))))
        low, high = difference.interval()
        held.append(low <= 0 <= high)
    print(f"{num_seeds} seeds, sd {seed_sd}: {np.mean(held):.4f}")
    assert 0.935 <= np.mean(held) <= 0.965


def test_two_seeds_of_equal_means_are_no_training_without_noise():
    difference = contrast(aligned([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0]], [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]))
    assert difference.se > 0.05
    assert difference.p > 0.05


def test_few_questions_of_0_or_1_and_two_seeds_are_never_news_by_luck_of_equal_means():
    draw, p = np.random.default_rng(4), []
    for _ in range(2000):
        hard = draw.normal(size=40)
        arms = [(hard + draw.normal(scale=0.3, size=(2, 40)) > 0).astype(float) for _ in range(2)]
        p.append(contrast(aligned(*arms)).p)
    assert np.mean(np.less(p, 0.05)) <= 0.05
    assert np.mean(np.less(p, 0.005)) <= 0.005


def test_a_model_that_nothing_was_trained_for_has_no_seed_noise():
    draw = np.random.default_rng(0)
    arm, fixed = trained(draw, 3, seed_sd=0.05), trained(draw, 1, seed_sd=0.0)
    assert contrast(aligned(arm, fixed), is_trained=(True, False)).has_seed_noise
    assert not contrast(aligned(arm, fixed), is_trained=(True, True)).has_seed_noise
    assert contrast(aligned(fixed, fixed + 1), is_trained=(False, False)).has_seed_noise


# many at once


def joint(pairs, differences, weights):
    sums = [np.bincount(pair.group_N, pair.differences) for pair in pairs]
    return Joint(sums, pairs[0].group_N, differences, weights)


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(seed).random(9) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist())


def test_holm_leaves_out_what_has_no_p():
    assert holm([0.01, math.nan, 0.02])[0] == pytest.approx(0.02)


def arms_alike(draw, num_arms=8, num=N):
    """-> scores of a control and arms that are all the same recipe, one seed: 0 or 1, as hard questions are shared."""
    hard = draw.normal(size=num)
    return (hard + draw.normal(scale=0.3, size=(num_arms + 1, num)) > 0).astype(float)


def test_simultaneous_intervals_hold_together_as_often_as_they_say():
    draw = np.random.default_rng(1)
    held = []
    for _ in range(150):
        control, *arms = arms_alike(draw, num=150)
        pairs = [aligned(arm, control) for arm in arms]
        differences = [contrast(pair) for pair in pairs]
        weights = [1 / len(pairs)] * len(pairs)
        level = simultaneous_level(simultaneous_alpha([joint(pairs, differences, weights)]), weights[0])
        assert 0.95 <= level <= 1 - 0.05 / len(differences) + 0.002  # between one comparison and Bonferroni's eight
        held.append(all(low <= 0 <= high for low, high in (adjusted_interval(one, level) for one in differences)))
    assert 0.90 <= np.mean(held) <= 0.99


def test_eight_equal_arms_make_false_news_in_at_most_six_studies_of_a_hundred():
    draw = np.random.default_rng(20261127)
    false = {"holm": 0, "raw p < 0.05": 0, "best beats the control by its standard error": 0}
    for _ in range(1000):
        control, *arms = arms_alike(draw)
        differences = [contrast(aligned(arm, control)) for arm in arms]
        p = [one.p for one in differences]
        false["holm"] += min(holm(p)) < 0.05
        false["raw p < 0.05"] += min(p) < 0.05
        leader = max(arms, key=np.mean)
        naive = leader.std(ddof=1) / math.sqrt(N)
        paired = contrast(aligned(leader, control)).se
        false["best beats the control by its standard error"] += leader.mean() - control.mean() > min(naive, paired)
    print(false)
    assert false["holm"] <= 60
    assert false["raw p < 0.05"] > 150
    assert false["best beats the control by its standard error"] > 300


def test_who_may_be_the_best_is_told_by_shares_that_add_up():
    draw = np.random.default_rng(0)
    hard = draw.normal(size=N)
    a, b, c = best(resampled([(hard + draw.normal(size=N) > shift).astype(float) for shift in (0, 0, 2)], np.arange(N)))
    assert a + b + c == pytest.approx(1)
    assert c == 0
    assert min(a, b) > 0.01


def test_a_resample_draws_whole_clusters():
    arm = np.array([1.0, 1, 0, 0])
    drawn = resampled([arm, 1 - arm], np.array([0, 0, 1, 1]))
    assert set(drawn[:, 0].round(9)) == {0.0, 0.5, 1.0}
    assert best(drawn)[0] == pytest.approx(0.5, abs=0.03)  # 1/4 ahead, 1/4 behind, half a tie


# verdicts


def measured(value, se, *, has_seed_noise=True):
    return Contrast(value, se, 200, 400, None, has_seed_noise)


@pytest.mark.parametrize(
    ("difference", "p_holm", "expected"),
    [
        (measured(0.03, 0.005), 0.001, "better"),
        (measured(-0.03, 0.005), 0.001, "worse"),
        (measured(0.03, 0.02), 0.4, "inconclusive"),
        (measured(0.001, 0.004), 0.9, "equivalent"),
        (measured(0.005, 0.004), 0.9, "inconclusive"),
        (measured(0.03, 0.005, has_seed_noise=False), 0.001, "suggestive"),
        (measured(0.001, 0.001, has_seed_noise=False), 0.9, "inconclusive"),
        (measured(math.nan, math.nan), math.nan, "inconclusive"),
    ],
)
def test_a_verdict_says_no_more_than_the_evidence(difference, p_holm, expected):
    assert verdict(difference, p_holm, 0.01) == expected


def test_a_difference_is_told_only_where_its_interval_tells_it_too():
    difference = measured(0.03, 0.0125)  # 2.4 standard errors: p = 0.017
    assert verdict(difference, 0.017, 0.01) == "better"
    assert verdict(difference, 0.034, 0.01, level=0.99) == "inconclusive"  # whose interval ends at -0.0025
    assert verdict(difference._replace(has_seed_noise=False), 0.034, 0.01, level=0.99) == "inconclusive"
    assert verdict(difference, 0.06, 0.01) == "inconclusive"


@pytest.mark.parametrize(("num_differing", "n"), [(0, 100), (1, 300), (24, 1000)])
def test_how_much_more_may_differ_is_the_exact_limit_of_a_share(num_differing, n):
    from statsmodels.stats.proportion import proportion_confint

    difference = Contrast(0.0, 0.01, n - 1, n, None, True, num_differing)
    high = proportion_confint(num_differing, n, alpha=0.1, method="beta")[1]
    assert difference.unseen(0.9) == pytest.approx(high - num_differing / n)


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("lost", [0.0, 0.005])
def test_arms_that_differ_by_delta_are_hardly_ever_called_equivalent(n, lost):
    draw, differences = np.random.default_rng(n), []
    for _ in range(400):
        control = draw.random(n) < 0.5
        chance = draw.random(n)
        arm = np.where(chance < 0.01 + lost, 1, np.where(chance < 0.01 + 2 * lost, 0, control))
        control = np.where(chance < 0.01 + lost, 0, np.where(chance < 0.01 + 2 * lost, 1, control))
        differences.append(contrast(aligned(arm, control))._replace(has_seed_noise=True))
    share = sum(verdict(difference, 1.0, 0.01) == "equivalent" for difference in differences) / len(differences)
    assert share <= 0.07  # 37 % at n = 100 if no difference among those asked counted as none anywhere


def test_arms_that_differ_nowhere_have_an_interval_all_the_same():
    right = np.arange(1000) % 2
    difference = contrast(aligned([right, right], [right, right]))
    low, high = difference.interval(0.9)
    assert (low, high) == pytest.approx((-0.003, 0.003), abs=1e-4)  # the rule of three
    assert verdict(difference, difference.p, 0.01) == "equivalent"
    few = contrast(aligned([right[:100]] * 2, [right[:100]] * 2))
    assert verdict(few, few.p, 0.01) == "inconclusive"


def test_an_interaction_that_is_nowhere_seen_may_be_twice_a_difference_that_is_not():
    right = (np.arange(1000) % 2).astype(float)
    four = linear([np.stack([right] * 2)] * 4, [1, -1, -1, 1], np.arange(1000), False, [True] * 4)
    low, high = four.interval(0.9)
    assert (low, high) == pytest.approx((-0.006, 0.006), abs=2e-4)


def test_where_lower_is_better_less_is_better():
    assert verdict(measured(-0.03, 0.005), 0.001, 0.01, sign=-1) == "better"
