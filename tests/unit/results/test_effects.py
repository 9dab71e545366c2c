"""An ablation's own contrasts: which there are, and each number against another computation of it from the files."""

import json
import math

import numpy as np
import pytest
from support.report_study import bench
from support.scored_cells import commit_scores

from ablate.results.collect import Metric, collect
from ablate.results.effects import effects_of
from ablate.results.verdicts import findings_of

TEACHER = {"distill.teacher": ["baseline", "finetuned"]}
STUDENT = {"distill.student": ["baseline", "finetuned"]}
RATES = {"distill.lr": [1e-3, 1e-4, 1e-5]}
RATIOS = {"distill.kd_ratio": [0.25, 0.5, 1.0]}
CLUSTERED = Metric("hellaswag", "acc")


def measured(tmp_path, *, seeds=(0,), but=(), **ablation):
    """-> results of one ablation, all done `but` rows of these names."""
    study = bench(tmp_path, seeds=list(seeds), ablations={"one": ablation})
    study.commit(*(cell for cell in study.plan().cells if cell.row.name not in but))
    return collect(study.plan())


def effects(results):
    return effects_of(results, results.ablations[0])


def primary_effects(results):
    return [one for one in effects(results) if one.metric == results.ablations[0].primary]


def shapes(results):
    return [(one.kind, one.axis, one.plus, one.minus) for one in primary_effects(results)]


def weights_of(effect):
    return {row.row.name: pytest.approx(weight) for row, weight in effect.rows}


def files(results, metric, number=0):
    """-> name of a distilled row -> S x N scores as they lie on disk, and the cluster of each question."""
    scores, clusters = {}, None
    for row in results.ablations[number].rows:
        if row.done:
            seeds = [
                [json.loads(line) for line in cell.samples(metric.task).read_text().splitlines()] for cell in row.done
            ]
            scores[row.row.name] = np.array([[one["scores"][metric.name] for one in lines] for lines in seeds])
            clusters = [one.get("cluster", str(one["doc_id"])) for one in seeds[0]]
    return scores, clusters


# which there are


def test_of_two_values_the_later_listed_stands_against_the_earlier(tmp_path):
    results = measured(tmp_path, grid=TEACHER)
    assert shapes(results) == [("levels", ("distill.teacher",), "finetuned", "baseline")]
    assert weights_of(primary_effects(results)[0]) == {"teacher=baseline": -1, "teacher=finetuned": 1}
    assert [one.metric for one in effects(results)] == list(results.ablations[0].columns)


def test_a_grid_of_two_axes_has_two_main_effects_and_their_interaction(tmp_path):
    results = measured(tmp_path, grid=TEACHER | STUDENT)
    assert shapes(results) == [
        ("levels", ("distill.teacher",), "finetuned", "baseline"),
        ("levels", ("distill.student",), "finetuned", "baseline"),
        ("interaction", ("distill.teacher", "distill.student"), "finetuned", "baseline"),
    ]
    teacher, student, both = (weights_of(one) for one in primary_effects(results))
    names = [f"teacher={a},student={b}" for a in TEACHER["distill.teacher"] for b in STUDENT["distill.student"]]
    assert [teacher[name].expected for name in names] == [-0.5, -0.5, 0.5, 0.5]
    assert [student[name].expected for name in names] == [-0.5, 0.5, -0.5, 0.5]
    assert [both[name].expected for name in names] == [1, -1, -1, 1]


def test_along_an_ordered_axis_are_its_trend_and_its_best_value_against_the_studys_own(tmp_path):
    results = measured(tmp_path, grid={"distill.lr": [1e-3, 3e-4, 1e-5]})
    assert results.ablations[0].rows[-2].row.setting.distill.lr == 3e-4
    trend, best = primary_effects(results)
    assert (trend.kind, trend.plus, trend.minus) == ("trend", "0.001", "1e-05")
    assert (best.kind, best.minus, best.tried) == ("best", "0.0003", 2)
    score = {row.row.name: row.score(best.metric).value for row in results.ablations[0].rows}
    assert best.plus == max(("0.001", "1e-05"), key=lambda value: score[f"lr={value}"])


def right(*, won, lost, num=400):
    """-> scores beside a default that has the first half right."""
    scores = np.arange(num) < num // 2
    scores[:lost], scores[num // 2 : num // 2 + won] = False, True
    return scores


@pytest.mark.parametrize(
    ("open_one", "clear_one", "shown", "verdict"),
    [
        ({"won": 120, "lost": 96}, {"won": 20, "lost": 0}, "1e-05", "suggestive"),
        ({"won": 90, "lost": 120}, {"won": 0, "lost": 20}, "0.001", "inconclusive"),
    ],
)
def test_the_best_value_is_one_that_is_clearly_ahead_and_no_value_is_behind_while_another_is_open(
    tmp_path, open_one, clear_one, shown, verdict
):
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}})
    scores = {"lr=0.001": right(**open_one), "lr=1e-05": right(**clear_one)}
    for cell in study.plan().cells:
        own = scores.get(cell.row.name, right(won=0, lost=0))
        commit_scores(study, cell, {"hellaswag": {"acc": own}})
    _, best = primary_effects(collect(study.plan()))
    assert (best.kind, best.plus, best.verdict, best.tried) == ("best", shown, verdict, 2)


def test_without_the_studys_own_value_among_them_none_is_called_best(tmp_path):
    assert [kind for kind, *_ in shapes(measured(tmp_path, grid={"distill.lr": [1e-2, 1e-3, 1e-4]}))] == ["trend"]


def test_what_an_ablation_sets_does_not_hide_the_studys_own_value(tmp_path):
    grid = {"distill.kd_ratio": [0.25, 0.5, 1.0]}
    results = measured(tmp_path, grid=grid, set={"distill.pair": "qwen2", "distill.lr": 1e-3})
    assert [(kind, minus) for kind, _, _, minus in shapes(results)] == [("trend", "0.25"), ("best", "0.5")]


@pytest.mark.parametrize(
    ("losses", "base"),
    [(["reverse_kl", "forward_kl", "jsd"], "forward_kl"), (["reverse_kl", "jsd", "symmetric_kl"], "reverse_kl")],
)
def test_values_without_an_order_stand_against_the_studys_own_or_the_first(tmp_path, losses, base):
    results = measured(tmp_path, grid={"distill.loss": losses})
    assert shapes(results) == [("levels", ("distill.loss",), loss, base) for loss in losses if loss != base]


def test_a_list_of_rows_is_one_axis_without_an_order(tmp_path):
    results = measured(tmp_path, zip={"distill.lr": [1e-3, 3e-4, 1e-5], "distill.kd_ratio": [0.25, 0.5, 1.0]})
    assert shapes(results) == [
        ("levels", ("distill.kd_ratio", "distill.lr"), "lr=0.001,kd_ratio=0.25", "lr=0.0003,kd_ratio=0.5"),
        ("levels", ("distill.kd_ratio", "distill.lr"), "lr=1e-05,kd_ratio=1.0", "lr=0.0003,kd_ratio=0.5"),
    ]


def test_each_pair_is_for_itself(tmp_path):
    results = measured(tmp_path, grid={"distill.pair": ["llama", "qwen2"]} | TEACHER)
    assert [(one.pair, one.kind) for one in primary_effects(results)] == [("llama", "levels"), ("qwen2", "levels")]


def test_one_row_and_pairs_alone_have_no_contrast_but_the_controls(tmp_path):
    assert effects(measured(tmp_path / "one", set={"distill.lr": 1e-3})) == ()
    assert effects(measured(tmp_path / "pairs", grid={"distill.pair": ["llama", "qwen2"]})) == ()


def test_three_axes_have_main_effects_alone(tmp_path):
    results = measured(tmp_path, grid=TEACHER | STUDENT | {"distill.kd_ratio": [0.5, 1.0]})
    assert [(kind, axis) for kind, axis, *_ in shapes(results)] == [
        ("levels", ("distill.teacher",)),
        ("levels", ("distill.student",)),
        ("levels", ("distill.kd_ratio",)),
    ]
    assert {abs(weight) for _, weight in primary_effects(results)[0].rows} == {0.25}


def test_a_missing_cell_takes_its_whole_stratum_with_it_and_is_told(tmp_path):
    missing = "teacher=finetuned,student=finetuned"
    results = measured(tmp_path, grid=TEACHER | STUDENT, but=[missing])
    teacher, student = primary_effects(results)
    assert weights_of(teacher) == {"teacher=baseline,student=baseline": -1, "teacher=finetuned,student=baseline": 1}
    assert weights_of(student) == {"teacher=baseline,student=baseline": -1, "teacher=baseline,student=finetuned": 1}
    assert [(row.row.name, why) for row, why in teacher.left_out] == [
        (missing, "waiting"),
        ("teacher=baseline,student=finetuned", "no row beside it differs in this alone"),
    ]


# their numbers


def by_least_squares(results, metric, formula, term):
    """-> a term of a linear model with an effect of each question, and its cluster-robust error; one seed."""
    import pandas
    from statsmodels.formula.api import ols

    scores, clusters = files(results, metric)
    lines = [
        {
            "y": y,
            "question": number,
            "cluster": cluster,
            **{path.rpartition(".")[2]: value for path, value in row.row.values.items()},
        }
        for row in results.ablations[0].rows
        if row.row.model == "distill"
        for number, (y, cluster) in enumerate(zip(scores[row.row.name][0], clusters, strict=True))
    ]
    groups = np.unique(clusters, return_inverse=True)[1]
    fitted = ols(f"y ~ {formula} + C(question)", pandas.DataFrame(lines)).fit(
        cov_type="cluster", cov_kwds={"groups": np.tile(groups, len(lines) // len(groups)), "use_correction": False}
    )
    num = groups.max() + 1
    return fitted.params[term], fitted.bse[term] * math.sqrt(num / (num - 1))


CODE = {"teacher": "I((teacher == 'finetuned') - 0.5)", "student": "I((student == 'finetuned') - 0.5)"}


@pytest.mark.parametrize("metric", [CLUSTERED, Metric("truthfulqa_mc2", "acc")], ids=str)
def test_main_effects_and_interaction_are_those_of_a_linear_model(tmp_path, metric):
    results = measured(tmp_path, grid=TEACHER | STUDENT)
    teacher, student = (value.replace("I((", "I(1.0 * (") for value in CODE.values())
    for effect, term in zip(
        (one for one in effects(results) if one.metric == metric),
        (teacher, student, f"{teacher}:{student}"),
        strict=True,
    ):
        value, se = by_least_squares(results, metric, f"{teacher} * {student}", term)
        assert (effect.contrast.value, effect.contrast.se) == pytest.approx((value, se))


def test_a_trend_over_a_grid_and_the_difference_of_slopes_are_those_of_a_linear_model(tmp_path):
    results = measured(tmp_path, grid=RATES | TEACHER)
    teacher, x = CODE["teacher"].replace("I((", "I(1.0 * ("), "I(np.log(lr) - np.log(1e-4))"
    of_metric = {one.kind: one for one in effects(results) if one.metric == CLUSTERED}
    for kind, term in (("trend", x), ("levels", teacher), ("interaction", f"{x}:{teacher}")):
        value, se = by_least_squares(results, CLUSTERED, f"{x} * {teacher}", term)
        span = 1 if kind == "levels" else math.log(1e-3 / 1e-5)
        contrast = of_metric[kind].contrast
        assert (contrast.value, contrast.se) == pytest.approx((value * span, se * span))


def test_two_ordered_axes_interact_by_the_product_of_their_lines(tmp_path):
    results = measured(tmp_path, grid=RATES | RATIOS)
    x, k = "I(np.log(lr) - np.log(1e-4))", "I(kd_ratio - 1.75 / 3)"
    (both,) = (one for one in effects(results) if one.metric == CLUSTERED and one.kind == "interaction")
    value, se = by_least_squares(results, CLUSTERED, f"{x} * {k}", f"{x}:{k}")
    span = math.log(1e-3 / 1e-5) * 0.75
    assert (both.contrast.value, both.contrast.se) == pytest.approx((value * span, se * span))


def written_out(scores, groups, weights):
    """-> value, se and df of sum of w * mean, written out from the two-way layout of each row's seeds and questions."""
    n, num = len(groups), groups.max() + 1
    d = sum(w * scores[name].mean(0) for name, w in weights.items())
    v_q = num / (num - 1) * sum(((d - d.mean())[groups == g].sum()) ** 2 for g in range(num)) / n**2
    v_s = v_e = a_sum = a_squares = 0.0
    for name, w in weights.items():
        y, a = scores[name], w**2 / len(scores[name])
        seeds = len(y)
        rest = [y[s, i] - y[s].mean() - y[:, i].mean() + y.mean() for s in range(seeds) for i in range(n)]
        v_s += a * sum((y[s].mean() - y.mean()) ** 2 for s in range(seeds)) / (seeds - 1)
        v_e += a * sum(one**2 for one in rest) / ((seeds - 1) * (n - 1)) / n
        a_sum, a_squares = a_sum + a, a_squares + a**2 / (seeds - 1)
    v_s, own = max(v_s, v_e / 10), max(v_q - v_e, 0)
    share = 2 * v_s / (2 * v_s + own)
    return d.mean(), math.sqrt(v_s + own), 1 / (share**2 * a_squares / a_sum**2 + (1 - share) ** 2 / (num - 1))


def seeds_of(scores, weights):
    """-> the part of the variance that training seeds have."""
    v_s = v_e = 0.0
    for name, w in weights.items():
        y, a = scores[name], w**2 / len(scores[name])
        rest = y - y.mean(0) - y.mean(1)[:, None] + y.mean()
        v_s += a * y.mean(1).var(ddof=1)
        v_e += a * (rest**2).sum() / (len(y) - 1) / (y.shape[1] - 1) / y.shape[1]
    return max(v_s, v_e / 10)


def test_with_several_seeds_and_one_row_short_of_them_the_error_is_that_of_the_formula(tmp_path):
    study = bench(tmp_path, seeds=[0, 1, 2], ablations={"one": {"grid": TEACHER | STUDENT}})
    cells = study.plan().cells
    study.commit(*cells[:-1])
    results = collect(study.plan())
    scores, clusters = files(results, CLUSTERED)
    assert [len(scores[name]) for name in scores if "=" in name] == [3, 3, 3, 2]
    groups = np.unique(clusters, return_inverse=True)[1]
    for one in (one for one in effects(results) if one.metric == CLUSTERED):
        expected = written_out(scores, groups, {row.row.name: weight for row, weight in one.rows})
        assert (one.contrast.value, one.contrast.se, one.contrast.df) == pytest.approx(expected)


# what a study states


def stated(plus, minus):
    return {"asked": {"plus": plus, "minus": minus}}


def test_a_stated_contrast_stands_in_place_of_those_that_follow_from_the_axes(tmp_path):
    sides = {"distill.student": "finetuned"}, {"distill.student": "baseline"}
    results = measured(tmp_path, grid=TEACHER | STUDENT, contrasts=stated(*sides))
    (asked,) = primary_effects(results)
    assert (asked.kind, asked.name, asked.plus, asked.minus) == ("stated", "asked", "finetuned", "baseline")
    derived = measured(tmp_path / "derived", grid=TEACHER | STUDENT)
    assert weights_of(asked) == {row.row.name: weight for row, weight in primary_effects(derived)[1].rows}


def test_a_stated_contrast_of_several_settings_is_mean_against_mean_within_what_both_share(tmp_path):
    plus, minus = {"distill.teacher": "finetuned", "distill.student": "finetuned"}, {"distill.teacher": "baseline"}
    grid = TEACHER | STUDENT | {"distill.kd_ratio": [0.5, 1]}
    (asked,) = primary_effects(measured(tmp_path, grid=grid, contrasts=stated(plus, minus)))
    assert (asked.plus, asked.minus) == ("teacher=finetuned, student=finetuned", "teacher=baseline")
    weights = {row.row.name: weight for row, weight in asked.rows}
    assert weights == {
        f"teacher={teacher},student={student},kd_ratio={ratio}": weight
        for teacher, student, weight in (
            ("finetuned", "finetuned", 0.5),
            ("baseline", "baseline", -0.25),
            ("baseline", "finetuned", -0.25),
        )
        for ratio in (0.5, 1.0)
    }


def test_a_stated_contrast_is_of_no_key(tmp_path):
    grid = {"grid": TEACHER}
    plans = [
        bench(tmp_path, ablations={"one": grid | more}).plan()
        for more in ({}, {"contrasts": stated({"distill.teacher": "baseline"}, {"distill.teacher": "finetuned"})})
    ]
    assert plans[0].stages[0].key == plans[1].stages[0].key
    assert [stage.key for stage in plans[0].stages] == [stage.key for stage in plans[1].stages]


# one family


def written_out_holm(p, weights):
    """Of each: the least alpha at which a step-down that shares alpha out by weight rejects it."""
    adjusted, left, highest = {}, dict(weights), 0.0
    while left:
        first = min(left, key=lambda one: p[one] / weights[one])
        highest = max(highest, min(1.0, p[first] / weights[first] * sum(left.values())))
        adjusted[first] = highest
        del left[first]
    return adjusted


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two ablations that share a row, with three seeds."""
    ablations = {
        "teacher": {"grid": TEACHER},
        "rate": {"grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}, "set": {"distill.teacher": "finetuned"}},
    }
    study = bench(tmp_path_factory.mktemp("page"), seeds=[0, 1, 2], ablations=ablations)
    study.commit(*{cell.evaluate.key: cell for cell in study.plan().cells}.values())
    return collect(study.plan())


def test_a_row_that_stands_in_two_tables_is_one_comparison_with_one_verdict(page):
    teacher, rate = (findings_of(page, ablation) for ablation in page.ablations)
    assert (teacher.size, rate.size) == (2 * 4, 3 * 4)
    assert teacher.family.size == 4 * (2 + 3 - 1) + 4 * (1 + 3)
    for metric in page.ablations[0].columns:
        one, other = (
            next(one for one in found.all if one.row.row.name == name and one.metric == metric)
            for found, name in ((teacher, "teacher=finetuned"), (rate, "lr=0.0003"))
        )
        assert (one.verdict, one.p_holm, one.low, one.high) == (other.verdict, other.p_holm, other.low, other.high)


def p_of(scores, groups, weights):
    """By t(df), and under 5 % by the quantiles of seeds and questions each for itself, which come in by degrees."""
    from scipy.optimize import brentq
    from scipy.stats import t

    value, se, df = written_out(scores, groups, weights)
    a = {name: w**2 / len(scores[name]) for name, w in weights.items()}
    df_s = sum(a.values()) ** 2 / sum(one**2 / (len(scores[name]) - 1) for name, one in a.items())
    own = seeds_of(scores, weights) / se**2

    def mixed(p):
        return own * t.isf(p / 2, df_s) + (1 - own) * t.isf(p / 2, groups.max())

    def limit(log_p):
        p = math.exp(log_p)
        degree = min(max(math.log(p / 0.01) / math.log(5), 0), 1)
        return max(t.isf(p / 2, df), min(1, t.isf(0.025, df) / mixed(0.05)) ** degree * mixed(p))

    p = 2 * t.sf(abs(value) / se, df)
    if p >= 0.05:
        return p
    return math.exp(brentq(lambda log_p: limit(log_p) - abs(value) / se, -60, math.log(0.05) + 1e-9, xtol=1e-12))


def test_the_family_is_every_comparison_of_the_page_corrected_once(page):
    primary = page.ablations[0].primary
    x = np.log([1e-3, 3e-4, 1e-5]) - np.log([1e-3, 3e-4, 1e-5]).mean()
    slope = dict(zip(("lr=0.001", "lr=0.0003", "lr=1e-05"), x / (x**2).sum(), strict=True))
    rows = ("lr=0.001", "lr=0.0003", "lr=1e-05", "teacher=baseline")
    p, weights = {}, {}
    for metric in page.ablations[0].columns:
        both = [files(page, metric, number) for number in (0, 1)]
        scores, groups = both[0][0] | both[1][0], np.unique(both[0][1], return_inverse=True)[1]
        compared = {
            "levels": {"teacher=finetuned": 1, "teacher=baseline": -1},
            "trend": slope,
            "0.001": {"lr=0.001": 1, "lr=0.0003": -1},
            "1e-05": {"lr=1e-05": 1, "lr=0.0003": -1},
            **{name: {name: 1, "student/finetuned": -1} for name in rows},
        }
        for what, of_rows in compared.items():
            p[metric, what] = p_of(scores, groups, of_rows)
            share = {"levels": 1 / 4}.get(what, 1 / 12 if what not in rows else 1 / 16)
            weights[metric, what] = share if metric == primary else 1 / 4 / 24
    assert sum(weights.values()) == pytest.approx(1)
    expected = written_out_holm(p, weights)
    for ablation in page.ablations:
        for one in effects_of(page, ablation):
            what = one.plus if one.kind == "best" else one.kind
            assert one.p_holm == pytest.approx(expected[one.metric, what])
        for one in findings_of(page, ablation).all:
            name = "lr=0.0003" if one.row.row.name == "teacher=finetuned" else one.row.row.name
            assert one.p_holm == pytest.approx(expected[one.metric, name])
