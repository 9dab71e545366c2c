"""The figure of page 1: every distilled row once in its ablation, its score and interval as they are measured."""

import math
import re

import numpy as np
import pytest
from scipy import stats
from support.report_study import bench

from ablate.report.exhibits.front_figure import front_figure
from ablate.report.exhibits.front_groups import MOST_LINES, groups_of, primary_of
from ablate.results.aligned_rows import distilled
from ablate.results.collect import collect
from ablate.results.question_scores import read_question_scores
from ablate.results.row_intervals import interval_of
from ablate.results.verdicts import findings_of


def finished(root, **changes):
    study = bench(root, **changes)
    study.commit(*study.plan().cells)
    return collect(study.plan())


def question_scores(row, metric):
    """S x N."""
    kept = [read_question_scores(cell.samples(metric.task), metric.name) for cell in row.done]
    return np.array([seed.scores for seed in kept])


def test_the_interval_of_one_seed_is_students_t_of_its_questions(tmp_path):
    results = finished(tmp_path)
    metric = results.ablations[0].primary
    for row in results.ablations[0].rows:
        scores = question_scores(row, metric)[0]
        low, high = stats.t.interval(0.95, len(scores) - 1, scores.mean(), stats.sem(scores))
        interval = interval_of(row, metric)
        assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)
        assert interval.value == pytest.approx(scores.mean())


def test_with_several_seeds_one_interval_holds_questions_and_seeds(tmp_path):
    results = finished(tmp_path, seeds=[0, 1, 2])
    metric = results.ablations[0].primary
    for row in (row for row in results.ablations[0].rows if row.is_trained and row.row.model != "teacher/finetuned"):
        scores = question_scores(row, metric)
        interval = interval_of(row, metric)
        assert interval.has_seed_noise
        assert interval.seeds == pytest.approx(scores.mean(1))
        half = (interval.high - interval.low) / 2
        seeds_alone = scores.mean(1).std(ddof=1) / math.sqrt(3)
        assert half > 1.96 * seeds_alone


def test_a_row_that_is_right_everywhere_has_an_exact_interval_that_is_no_point(tmp_path):
    study = bench(tmp_path)
    cells = study.plan().cells
    study.commit(*cells)
    results = collect(study.plan())
    (metric,) = [one for one in results.ablations[0].columns if one.task == "commonsense_qa"]
    row = results.ablations[0].rows[0]
    path = row.done[0].samples(metric.task)
    path.write_text(re.sub(r'"acc": [01]\.0', '"acc": 1.0', path.read_text()))
    row.done[0].scores[metric] = row.done[0].scores[metric]._replace(value=1.0)
    interval = interval_of(row, metric)
    limit = stats.binomtest(80, 80).proportion_ci(0.95, "exact")
    assert (interval.low, interval.high) == pytest.approx((limit.low, 1.0))


def test_the_figure_tells_every_distilled_row_with_its_own_number(tmp_path):
    results = finished(tmp_path, seeds=[0, 1])
    piece = front_figure(results)
    assert set(piece.files) == {"figures/all-ablations.png", "figures/all-ablations.svg"}
    metric = primary_of(results)
    assert metric == results.ablations[0].primary
    titles = re.findall(r"<title>(.*?)</title>", piece.html)
    rows = [row for ablation in results.ablations for _, rows in distilled(ablation) for row in rows]
    assert len(titles) == len(rows)
    for row, title in zip(rows, titles, strict=True):
        interval = interval_of(row, metric)
        label = row.row.label.removeprefix("KD, ")
        text = f"{label} {100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
        assert title == text.replace("-", "\N{MINUS SIGN}").replace("1e\N{MINUS SIGN}05", "1e-05")


def test_one_run_that_two_ablations_show_has_one_letter(tmp_path):
    grids = {"lr": {"grid": {"distill.lr": [1e-3, 3e-4]}}, "ratio": {"grid": {"distill.kd_ratio": [0.5, 0.25]}}}
    results = finished(tmp_path, ablations=grids, distill={"batch_size": 128, "lr": 3e-4, "kd_ratio": 0.5})
    groups = groups_of(results, primary_of(results))
    letters = {line.row.row.name: line.letter for group in groups for line in group.lines}
    assert letters == {"lr=0.001": "", "lr=0.0003": "a", "kd_ratio=0.5": "a", "kd_ratio=0.25": ""}


def test_what_has_no_score_says_why(tmp_path):
    study = bench(tmp_path)
    *others, last = study.plan().cells
    study.commit(*others)
    study.fail(last.evaluate, "error", "a reason")
    results = collect(study.plan())
    groups = groups_of(results, primary_of(results))
    (why,) = [line.why for group in groups for line in group.lines if not line.interval]
    assert why.startswith("failed: error: a reason")
    assert why in front_figure(results).files["figures/all-ablations.svg"].decode()


def test_a_large_study_names_its_best_rows_and_draws_all(tmp_path):
    lrs = [1e-3 / (1 + number) for number in range(10)]
    tables = {f"t{number}": {"grid": {"distill.lr": [lr / (1 + number) for lr in lrs]}} for number in range(3)}
    results = finished(tmp_path, ablations=tables)
    metric = primary_of(results)
    groups = groups_of(results, metric)
    assert sum(group.num_lines for group in groups) <= MOST_LINES
    for group in groups:
        assert len(group.all) == 10
        kept = min(line.interval.value for line in group.lines)
        assert all(line.interval.value <= kept for line in group.more)
    assert len(re.findall(r"<title>", front_figure(results).html)) == 30


def test_before_any_score_there_is_no_figure(tmp_path):
    assert front_figure(collect(bench(tmp_path).plan())) is None


def test_a_filled_mark_is_a_difference_that_the_table_tells(tmp_path):
    results = finished(tmp_path)
    for ablation, group in zip(results.ablations, groups_of(results, primary_of(results)), strict=True):
        for line in group.all:
            assert line.finding is findings_of(results, ablation).find(line.row, ablation.primary)
