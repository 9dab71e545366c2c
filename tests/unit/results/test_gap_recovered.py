"""Gap recovered: as other computations have it, on generated and real samples; refused where it means nothing."""

import json
import math
from itertools import product
from pathlib import Path

import example
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t as student
from support.planned import finish, tutorial_plan
from support.report_study import bench
from support.scored_cells import commit_scores

from ablate.planning.project import project_of
from ablate.report.results_json import results_record
from ablate.results.collect import Metric, collect
from ablate.results.fieller import Task, fieller, moments
from ablate.results.gap_recovered import gap_of
from ablate.results.paired import linear
from ablate.results.row_teachers import teachers_of_row

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4]}}}
HELLASWAG = Metric("hellaswag", "acc")
TAUGHT = (True, True, False)


def generated(seed, seeds=1, num=300, clusters=80):
    """-> a task whose teacher is ahead: 0/1 scores, alike over arms and within clusters."""
    draw = np.random.default_rng(seed)
    group_N = np.unique(draw.integers(clusters, size=num), return_inverse=True)[1]
    hard_N = draw.normal(size=num) + draw.normal(size=clusters)[group_N]

    def arm(shift, several):
        moved = shift + 0.05 * draw.normal(size=(several, 1))
        return (hard_N + 0.7 * draw.normal(size=(several, num)) < moved).astype(float)

    return Task((arm(0.2, seeds), arm(-0.3, seeds), arm(0.6, 1)), group_N)


def weights(theta):
    return (1.0, theta - 1.0, -theta)


def brute(limit, value):
    """-> where t^2 reaches its quantile on both sides, by root-finding; `limit`: theta -> (value, se, df)."""

    def excess(theta):
        difference, se, df = limit(theta)
        return difference**2 - student.ppf(0.975, df) ** 2 * se**2

    ends = []
    for side in (-1, 1):
        step = 0.01
        while excess(value + side * step) < 0:
            step *= 1.5
        ends.append(brentq(excess, *sorted((value, value + side * step)), xtol=1e-12))
    return ends


# the interval


@pytest.mark.parametrize(("seed", "seeds"), list(product(range(4), (1, 2, 3))))
def test_a_contrast_has_the_error_that_the_tables_give_it(seed, seeds):
    task, some = generated(seed, seeds), np.random.default_rng(seed).normal(size=3)
    ours = moments([task], TAUGHT).contrast(some)
    theirs = linear(task.scores, some, task.group_N, True, TAUGHT)
    assert [float(ours.value), math.sqrt(ours.variance), float(ours.df)] == pytest.approx(
        [theirs.value, theirs.se, theirs.df], rel=1e-9
    )


@pytest.mark.parametrize("seed", range(5))
def test_of_independent_questions_and_one_seed_it_is_fiellers_closed_form(seed):
    row, control, teacher = (scores[0] for scores in generated(seed).scores)
    task = Task((row[None], control[None], teacher[None]), np.arange(len(row)))
    n, d = row - control, teacher - control
    (nn, nd), (_, dd) = np.cov(n, d) / len(n)
    t2 = student.ppf(0.975, len(n) - 1) ** 2
    # (mean d)^2 theta^2 - 2 (mean n)(mean d) theta + (mean n)^2 = t^2 (nn - 2 theta nd + theta^2 dd)
    ends = np.roots([d.mean() ** 2 - t2 * dd, -2 * (n.mean() * d.mean() - t2 * nd), n.mean() ** 2 - t2 * nn])
    ratio = fieller(moments([task], TAUGHT))
    assert float(ratio.value) == pytest.approx(n.mean() / d.mean())
    assert [float(ratio.low), float(ratio.high)] == pytest.approx(sorted(ends), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_of_clusters_it_is_what_least_squares_does_not_refuse(seed):
    task = generated(seed)
    ratio = fieller(moments([task], TAUGHT))
    assert [float(ratio.low), float(ratio.high)] == pytest.approx(
        brute(lambda theta: least_squares(task, theta), float(ratio.value)), rel=1e-7
    )


def least_squares(task, theta):
    import statsmodels.api as sm

    d_N = sum(w * scores[0] for w, scores in zip(weights(theta), task.scores, strict=True))
    fitted = sm.OLS(d_N, np.ones(len(d_N))).fit(
        cov_type="cluster", cov_kwds={"groups": task.group_N, "use_correction": True}, use_t=True
    )
    return fitted.params[0], fitted.bse[0], fitted.df_resid_inference


@pytest.mark.parametrize(("seed", "seeds"), list(product(range(3), (2, 3))))
def test_of_several_seeds_it_is_what_the_tables_test_does_not_refuse(seed, seeds):
    task = generated(seed, seeds)
    ratio = fieller(moments([task], TAUGHT))

    def limit(theta):
        one = linear(task.scores, weights(theta), task.group_N, True, TAUGHT)
        return one.value, one.se, one.df

    if math.isfinite(ratio.low):
        assert [float(ratio.low), float(ratio.high)] == pytest.approx(brute(limit, float(ratio.value)), rel=1e-6)
    else:
        lead = linear(task.scores, (0.0, -1.0, 1.0), task.group_N, True, TAUGHT)
        assert lead.interval()[0] < 0


def test_over_tasks_it_is_the_ratio_of_means_and_errors_of_independent_tasks_add():
    tasks = [generated(seed, num=num, clusters=num // 4) for seed, num in ((1, 200), (2, 400), (3, 120))]

    def limit(theta):
        parts = [least_squares(task, theta) for task in tasks]
        variances = [se**2 / 9 for _, se, _ in parts]
        df = sum(variances) ** 2 / sum(v**2 / df for v, (_, _, df) in zip(variances, parts, strict=True))
        return np.mean([value for value, _, _ in parts]), math.sqrt(sum(variances)), df

    ratio = fieller(moments(tasks, TAUGHT))
    means = np.array([[scores.mean() for scores in task.scores] for task in tasks]).mean(0)
    assert float(ratio.value) == pytest.approx((means[0] - means[1]) / (means[2] - means[1]))
    assert [float(ratio.low), float(ratio.high)] == pytest.approx(brute(limit, float(ratio.value)), rel=1e-6)


def test_over_tasks_a_seed_that_is_good_at_all_of_them_counts_as_one_training():
    task = generated(1, seeds=3)
    once, thrice = (moments([task] * num, TAUGHT).contrast(np.array([1.0, -1.0, 0.0])) for num in (1, 3))
    by_seed = sum(scores.mean(1).var(ddof=1) / 3 for scores in task.scores[:2])
    assert float(thrice.variance) == pytest.approx(by_seed + (once.variance - by_seed) / 3)


# real samples


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    root = tmp_path_factory.mktemp("embedded")
    example.unpack(root)
    return collect(project_of(Path("tiny"), root).plan(is_online=False))


def table(results, name):
    return next(ablation for ablation in results.ablations if ablation.name == name)


def named(ablation, name):
    return next(row for row in ablation.rows if row.row.name == name)


def raw(row, metric):
    """-> its scores, and each question's cluster, as they lie on disk."""
    lines = row.done[0].samples(metric.task).read_text().splitlines()
    samples = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
    return np.array([one["scores"][metric.name] for one in samples]), [one["cluster"] for one in samples]


def arms(results, name, metric):
    ablation = table(results, "kd_ratio")
    rows = [named(ablation, one) for one in (name, "student/finetuned", "teacher/finetuned")]
    (row, clusters), (control, _), (teacher, _) = (raw(one, metric) for one in rows)
    return (row, control, teacher), np.unique(clusters, return_inverse=True)[1]


NAMES = ("kd_ratio=0.25", "kd_ratio=0.5", "kd_ratio=1.0")
METRICS = (Metric("tiny_letters", "acc"), Metric("tiny_truth", "acc"), Metric("tiny_endings", "acc_norm"))


@pytest.mark.parametrize(("name", "metric"), list(product(NAMES, METRICS)), ids=str)
def test_of_the_embedded_study_it_is_what_least_squares_does_not_refuse(embedded, name, metric):
    ablation = table(embedded, "kd_ratio")
    gap = gap_of(embedded, ablation, named(ablation, name), metric)
    scores, group_N = arms(embedded, name, metric)
    row, control, teacher = (one.mean() for one in scores)
    assert gap.value == pytest.approx((row - control) / (teacher - control))
    task = Task(tuple(one[None] for one in scores), group_N)
    assert [gap.low, gap.high] == pytest.approx(brute(lambda theta: least_squares(task, theta), gap.value), rel=1e-6)
    assert [one.row.name for one in gap.teachers] == ["teacher/finetuned"]
    assert not gap.has_seed_noise


def test_of_the_embedded_study_bootstrap_and_jackknife_say_nearly_the_same(embedded):
    ablation, metric = table(embedded, "kd_ratio"), METRICS[0]
    gap = gap_of(embedded, ablation, named(ablation, "kd_ratio=1.0"), metric)
    scores, group_N = arms(embedded, "kd_ratio=1.0", metric)
    sums_GA = np.stack([np.bincount(group_N, one) for one in scores], 1)

    def ratios(sums_A):
        return (sums_A[..., 0] - sums_A[..., 1]) / (sums_A[..., 2] - sums_A[..., 1])

    num = len(sums_GA)
    without_G = ratios(sums_GA.sum(0) - sums_GA)
    jackknife = math.sqrt((num - 1) / num * ((without_G - without_G.mean()) ** 2).sum())
    drawn = np.random.default_rng(0).integers(num, size=(10_000, num))
    low, high = np.quantile(ratios(sums_GA[drawn].sum(1)), (0.025, 0.975))
    width = gap.high - gap.low
    assert width == pytest.approx(2 * student.ppf(0.975, num - 1) * jackknife, rel=0.25)
    assert [gap.low, gap.high] == pytest.approx([low, high], abs=0.2 * width)


def test_over_the_tasks_of_the_embedded_study_each_counts_once_by_one_metric(embedded):
    ablation = table(embedded, "kd_ratio")
    gap = gap_of(embedded, ablation, named(ablation, "kd_ratio=1.0"), None)
    assert list(map(str, gap.metrics)) == ["tiny_letters/acc", "tiny_truth/acc", "tiny_endings/acc"]
    row, control, teacher = np.array(
        [[one.mean() for one in arms(embedded, "kd_ratio=1.0", metric)[0]] for metric in gap.metrics]
    ).mean(0)
    assert gap.value == pytest.approx((row - control) / (teacher - control))
    assert gap.low < gap.value < gap.high


def test_a_row_that_leaves_out_0_differs_from_its_control_and_the_other_way_round(embedded):
    for ablation in embedded.ablations:
        for row, metric in product(ablation.rows, ablation.columns):
            gap = gap_of(embedded, ablation, row, metric)
            if gap and not gap.why:
                low, high = row.difference(gap.control, metric).interval()
                assert (gap.low > 0 or gap.high < 0) == (low > 0 or high < 0)


def test_a_teacher_that_is_not_ahead_gives_none_and_says_why(embedded):
    close = table(embedded, "close")
    gap = gap_of(embedded, close, named(close, "kd"), Metric("tiny_letters", "acc"))
    assert math.isnan(gap.value)
    assert math.isnan(gap.low)
    assert gap.why == "the teacher is not ahead of the student alone"
    assert gap.ahead < 0
    base = table(embedded, "finetuned_teacher")
    gap = gap_of(embedded, base, named(base, "teacher=baseline"), Metric("tiny_truth", "acc"))
    assert math.isnan(gap.value)
    assert gap.why == "the teacher's lead over the student alone cannot be told from none"
    assert gap.ahead_low < 0 < gap.ahead


# fabricated studies

SHARES = {"teacher/baseline": 0.6, "teacher/finetuned": 0.8, "student/baseline": 0.3, "student/finetuned": 0.4}


def right(share, num=400, shift=0):
    """-> 0/1 scores with just that share right; `shift`: other questions."""
    scores = np.zeros(num)
    scores[(np.arange(round(share * num)) + shift) % num] = 1
    return scores


def fabricated(tmp_path, scores_of, seeds=(0,), **changes):
    """-> results of a study of rates whose cells have the scores {task: {metric: scores}} of `scores_of(cell)`."""
    study = bench(tmp_path, seeds=list(seeds), ablations={"one": RATES["one"] | changes})
    for cell in study.plan().cells:
        scores = scores_of(cell)
        if scores is not None:
            commit_scores(study, cell, scores)
    return collect(study.plan())


def only(results, name="lr=0.001", metric=HELLASWAG):
    (ablation,) = results.ablations
    return gap_of(results, ablation, named(ablation, name), metric)


def share_of(cell):
    return SHARES.get(cell.row.model, 0.7)


def test_a_row_between_student_and_teacher_has_closed_its_part_of_the_gap(tmp_path):
    gap = only(fabricated(tmp_path, lambda cell: {"hellaswag": {"acc": right(share_of(cell))}}))
    assert gap.value == pytest.approx(0.75)
    assert 0.5 < gap.low < 0.75 < gap.high < 1
    assert (gap.ahead, gap.control.row.name) == (pytest.approx(0.4), "student/finetuned")


def test_where_lower_is_better_the_teacher_is_ahead_by_lower_scores(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    for cell in study.plan().cells:
        commit_scores(study, cell, {"hellaswag": {"acc": 1 - right(share_of(cell))}}, higher_is_better=False)
    gap = only(collect(study.plan()))
    assert (gap.value, gap.ahead, gap.why) == (pytest.approx(0.75), pytest.approx(0.4), "")
    assert only(collect(study.plan()), metric=None) is None


def test_where_lower_is_better_a_teacher_of_higher_scores_is_not_ahead(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    for cell in study.plan().cells:
        commit_scores(study, cell, {"hellaswag": {"acc": right(share_of(cell))}}, higher_is_better=False)
    assert only(collect(study.plan())).why == "the teacher is not ahead of the student alone"


@pytest.mark.parametrize(("like", "value"), [("student/finetuned", 0.0), ("teacher/finetuned", 1.0)])
def test_a_row_that_answers_just_as_another_does_may_still_differ_from_it_a_little(tmp_path, like, value):
    shares = SHARES | {"distill": SHARES[like]}
    gap = only(fabricated(tmp_path, lambda cell: {"hellaswag": {"acc": right(shares[cell.row.model])}}))
    most = 1 - 0.025 ** (1 / 400)  # Clopper and Pearson's limit of none in 400
    assert [gap.low, gap.value, gap.high] == pytest.approx([value - most / 0.4, value, value + most / 0.4])


def test_without_its_teacher_in_any_table_a_row_has_no_gap_and_says_so(tmp_path):
    references = ["teacher/baseline", "student/baseline", "student/finetuned"]
    gap = only(fabricated(tmp_path, lambda cell: {"hellaswag": {"acc": right(share_of(cell))}}, references=references))
    assert math.isnan(gap.value)
    assert gap.why == "its teacher was not evaluated"


def test_a_teacher_is_found_in_another_table_of_the_study(tmp_path):
    alone = RATES["one"] | {"references": ["student/finetuned"]}
    study = bench(tmp_path, ablations={"one": alone, "two": RATES["one"]})
    for cell in {cell.evaluate.key: cell for cell in study.plan().cells}.values():
        commit_scores(study, cell, {"hellaswag": {"acc": right(share_of(cell))}})
    results = collect(study.plan())
    gap = gap_of(results, results.ablations[0], named(results.ablations[0], "lr=0.001"), HELLASWAG)
    assert [(one.row.ablation, one.row.name) for one in gap.teachers] == [("two", "teacher/finetuned")]
    assert gap.value == pytest.approx(0.75)


def test_a_distilled_control_is_no_student_alone(tmp_path):
    results = fabricated(tmp_path, lambda cell: {"hellaswag": {"acc": right(share_of(cell))}}, control="lr=0.0003")
    assert only(results).control.row.name == "student/finetuned"


def test_other_questions_are_refused_by_the_name_of_the_row_that_answered_them(tmp_path):
    def scores(cell):
        num = 300 if cell.row.model == "teacher/finetuned" else 400
        return {"hellaswag": {"acc": right(share_of(cell), num)}}

    assert only(fabricated(tmp_path, scores)).why == "Fine-tuned teacher using LoRA: other questions"


def test_a_reference_a_replicate_and_a_row_that_is_not_done_have_no_gap(tmp_path):
    def scores(cell):
        return None if cell.row.name == "lr=0.0003" else {"hellaswag": {"acc": right(share_of(cell))}}

    results = fabricated(tmp_path, scores)
    assert [only(results, name) for name in ("lr=0.0003", "student/finetuned", "teacher/finetuned")] == [None] * 3


def test_questions_of_one_source_say_nothing_of_others(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    for cell in study.plan().cells:
        commit_scores(study, cell, {"hellaswag": {"acc": right(share_of(cell))}}, clusters=[0] * 400)
    gap = only(collect(study.plan()))
    assert math.isnan(gap.value)
    assert gap.why == "the teacher's lead over the student alone cannot be told from none"


def test_several_seeds_widen_the_interval_by_the_noise_of_training(tmp_path):
    def scores(cell):
        moved = {0: -0.06, 1: 0.0, 2: 0.06}.get(cell.seed, 0.0) if cell.row.model == "distill" else 0.0
        return {"hellaswag": {"acc": right(share_of(cell) + moved)}}

    one, three = (only(fabricated(tmp_path / str(len(s)), scores, s)) for s in ((1,), (0, 1, 2)))
    assert three.value == pytest.approx(one.value) == 0.75
    assert three.has_seed_noise
    assert not one.has_seed_noise
    assert three.high - three.low > 1.5 * (one.high - one.low)


def test_over_tasks_what_is_no_share_of_right_answers_is_left_out(tmp_path):
    def scores(cell):
        share = share_of(cell)
        return {
            "hellaswag": {"acc": right(share), "acc_norm": right(share / 2)},
            "commonsense_qa": {"acc": right(share - 0.1)},
            "wikitext": {"word_perplexity": 40 * (1 - right(share)) + 3},
        }

    gap = only(fabricated(tmp_path, scores), metric=None)
    assert set(map(str, gap.metrics)) == {"hellaswag/acc", "commonsense_qa/acc"}
    assert gap.value == pytest.approx(0.75)


def test_over_tasks_one_that_was_asked_otherwise_is_left_out_and_of_one_alone_there_is_no_mean(tmp_path):
    def scores(cell):
        num = 300 if cell.row.model == "teacher/finetuned" else 400
        share = share_of(cell)
        more = {"commonsense_qa": {"acc": right(share)}} if tmp_path.name == "two" else {}
        return {"hellaswag": {"acc": right(share)}, "arc_easy": {"acc": right(share, num)}, **more}

    assert only(fabricated(tmp_path, scores), metric=None) is None
    tmp_path = tmp_path / "two"
    two = only(fabricated(tmp_path, scores), metric=None)
    assert set(map(str, two.metrics)) == {"hellaswag/acc", "commonsense_qa/acc"}


def test_of_several_teachers_each_counts_by_its_weight(tmp_path):
    teachers = [{"teacher": "baseline", "weight": 1}, {"teacher": "finetuned", "weight": 3}]
    plan = tutorial_plan(tmp_path, f"ablations.learning_rate.set={{distill.teachers: {json.dumps(teachers)}}}")
    finish(plan)
    results = collect(plan)
    rates = table(results, "learning_rate")
    taught = teachers_of_row(results, rates, named(rates, "lr=0.001"))
    assert [(one.row.row.name, one.weight) for one in taught] == [
        ("teacher/baseline", 0.25),
        ("teacher/finetuned", 0.75),
    ]
    other = table(results, "kd_ratio")
    assert [one.row.row.name for one in teachers_of_row(results, other, named(other, "kd_ratio=1.0"))] == [
        "teacher/finetuned"
    ]


def test_results_json_has_each_gap_or_why_there_is_none(embedded):
    gaps = results_record(embedded)["gaps"]
    by_place = {(one["ablation"], one["row"], one["metric"]): one for one in gaps}
    assert len(by_place) == len(gaps)
    best = by_place["kd_ratio", "kd_ratio=0.75", "tiny_letters/acc"]
    assert best["teachers"] == ["kd_ratio/teacher/finetuned"]
    assert (best["why"], best["control"]) == ("", "student/finetuned")
    assert 0 < best["low"] < best["value"] < best["high"]
    assert by_place["kd_ratio", "kd_ratio=0.75", "all tasks"]["metrics"][0] == "tiny_letters/acc"
    assert all(one["why"] or one["low"] <= one["value"] <= one["high"] for one in gaps)
    assert by_place["close", "kd", "tiny_letters/acc"]["why"]
