"""Which rows may be the best, and the trend along an axis: who takes part, and what page and files say of it."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from support.golden import half_done
from support.report_study import Work, bench

from ablate.planning.plan import Plan
from ablate.report.exhibits.base import EXHIBITS
from ablate.report.exhibits.best_table import best_table
from ablate.report.exhibits.trend_table import trend_table
from ablate.report.write import write_report
from ablate.results.best_rows import contests_of
from ablate.results.collect import collect
from ablate.results.trends import trends_of
from ablate.results.verdicts import findings_of

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("finished"), seeds=[0, 1, 2], ablations=RATES)
    study.commit(*study.plan().cells)
    return study


def from_ablation(study, look, number=0):
    results = collect(study.plan())
    return look(results, results.ablations[number])


def lines(piece, name):
    return list(csv.DictReader(io.StringIO(piece.files[name].decode())))


def varied(tmp_path, **ablation):
    study = bench(tmp_path, ablations={"one": ablation})
    study.commit(*study.plan().cells)
    return study


# the best


def test_distilled_rows_and_the_control_compete_and_no_teacher_does(finished):
    for contest in from_ablation(finished, contests_of):
        names = [one.row.row.name for one in contest.candidates]
        assert names == ["student/finetuned", "lr=0.001", "lr=0.0003", "lr=1e-05"]
        assert sum(one.probability for one in contest.candidates) == pytest.approx(1)


def test_a_teacher_that_is_the_control_does_not_compete(tmp_path):
    study = varied(tmp_path, control="teacher/baseline", **{"grid": {"distill.lr": [1e-3, 3e-4]}})
    assert {len(contest.candidates) for contest in from_ablation(study, contests_of)} == {2}


@pytest.fixture
def replicated(tmp_path):
    """A distilled control, another row, and the control under another seed."""
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": [1e-3, 3e-4]}, "control": "lr=0.001"}})
    plan = study.plan()
    cells = plan.cells
    again = replace(cells[-2].row, name="lr=0.001/replicate", label="KD, lr=0.001, another seed")
    cell = replace(cells[-2], row=again, evaluate=replace(cells[-2].evaluate, settings=Work(name="again")))
    study.commit(*cells)
    study.commit_evaluation(cell)
    return collect(Plan(plan.study, plan.store, (*cells, cell)))


def test_the_control_under_another_seed_is_no_contender_of_its_own(replicated):
    assert len(replicated.ablations[0].rows) == 7
    for contest in contests_of(replicated, replicated.ablations[0]):
        assert [one.row.row.name for one in contest.candidates] == ["lr=0.001", "lr=0.0003"]


def test_the_control_under_another_seed_is_a_ruler_and_no_finding(replicated):
    (ablation,) = replicated.ablations
    family = findings_of(replicated, ablation)
    assert {one.row.row.name for one in family.all} == {"lr=0.0003"}
    assert family.size == len(ablation.columns)
    assert [(one.row.row.name, one.metric) for one in family.rulers] == [
        ("lr=0.001/replicate", metric) for metric in ablation.columns
    ]
    assert all(one.low < one.contrast.value < one.high for one in family.rulers)
    drawn = EXHIBITS["differences"](replicated, ablation).markdown
    assert drawn.count("KD, lr=0.001, another seed") == len(ablation.columns)
    assert "the control against itself" in drawn


@pytest.mark.slow
def test_what_failed_or_is_not_comparable_never_competes_and_says_why(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    *others, failed, unlike = study.plan().cells
    study.commit(*others)
    study.commit_training(failed)
    study.fail(failed.evaluate, "oom", "out of memory")
    study.commit_training(unlike)
    study.commit_evaluation(unlike, batch_size=8)
    for contest in from_ablation(study, contests_of):
        assert [one.row.row.name for one in contest.candidates] == ["student/finetuned", "lr=0.001"]
        assert [why for _, why in contest.left_out] == ["failed", "other batch size"]
    assert "left out: other batch size" in from_ablation(study, best_table).html
    recorded = json.loads((write_report(study.plan()) / "results.json").read_text())["best"]
    assert {one["row"] for one in recorded} == {"student/finetuned", "lr=0.001"}


def test_one_row_alone_has_nobody_to_compete_with(tmp_path):
    assert from_ablation(half_done(tmp_path), best_table, number=1) is None


def test_where_lower_is_better_the_lowest_is_the_best(tmp_path):
    def lower(results):
        for task in results["tasks"].values():
            task["higher_is_better"] = {"acc": False, "acc_norm": False}

    up, down = (bench(tmp_path / name, ablations=RATES) for name in ("up", "down"))
    up.commit(*up.plan().cells)
    for cell in down.plan().cells:
        down.commit_evaluation(cell, edit=lower)
    for high, low in zip(from_ablation(up, contests_of), from_ablation(down, contests_of), strict=True):
        ranked = sorted(high.candidates, key=lambda one: one.row.score(high.metric).value)
        probabilities = {one.row.row.name: one.probability for one in low.candidates}
        assert max(probabilities, key=probabilities.get) == ranked[0].row.row.name


@pytest.mark.slow
def test_the_page_files_and_results_json_tell_the_same_contest(finished):
    folder = write_report(finished.plan())
    recorded = json.loads((folder / "results.json").read_text())["best"]
    table = lines(from_ablation(finished, best_table), "tables/one-best.csv")
    assert [float(one["Probability of best, questions alone"]) for one in table] == [
        one["probability_of_best"] for one in recorded
    ]
    assert [one["May be the best"] == "yes" for one in table] == [one["may_be_best"] for one in recorded]
    assert len(table) == 4 * 4  # each metric for itself
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    shown = re.findall(r"<td>(?:&lt; |&gt; )?(\d+) %</td><td>(yes|no)</td>", page)
    assert [word == "yes" for _, word in shown] == [one["may_be_best"] for one in recorded]
    assert [int(percent) for percent, _ in shown] == pytest.approx(
        [100 * one["probability_of_best"] for one in recorded], abs=1
    )
    assert text.count("other seeds left aside") == 1
    assert "With one seed" not in text


def test_with_one_seed_the_set_is_said_to_hold_question_noise_only(tmp_path):
    study = varied(tmp_path, **RATES["one"])
    assert "another seed could change it" in from_ablation(study, best_table).markdown


def test_each_pair_competes_for_itself(tmp_path):
    study = varied(tmp_path, grid={"distill.pair": ["llama", "qwen2"], "distill.lr": [1e-3, 3e-4, 1e-5]})
    contests = from_ablation(study, contests_of)
    assert {(contest.pair, len(contest.candidates)) for contest in contests} == {("llama", 4), ("qwen2", 4)}
    assert "HellaSwag acc (qwen2)" in from_ablation(study, best_table).markdown
    assert {one.pair for one in from_ablation(study, trends_of)} == {"llama", "qwen2"}


# the trend


@pytest.mark.parametrize(
    ("ablation", "path", "is_log"),
    [
        ({"grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}, "distill.lr", True),
        ({"grid": {"distill.kd_ratio": [0.25, 0.5, 1]}}, "distill.kd_ratio", False),
        ({"zip": {"distill.lr": [1e-3, 3e-4, 1e-5], "distill.kd_ratio": [0.5, 0.5, 0.5]}}, "distill.lr", True),
        ({"grid": {"distill.lr": [1e-3, 3e-4]}}, None, None),
        ({"grid": {"distill.lr": [1e-3, 3e-4, 1e-5], "distill.kd_ratio": [0.5, 1]}}, "distill.lr", True),
        ({"zip": {"distill.lr": [1e-3, 3e-4, 1e-5], "distill.kd_ratio": [0.5, 0.6, 0.7]}}, None, None),
        ({"grid": {"distill.loss": ["forward_kl", "reverse_kl", "jsd"]}}, None, None),
        ({"grid": {"distill.scale_by_t2": [True, False]}}, None, None),
        ({}, None, None),
    ],
)
def test_along_an_axis_of_numbers_there_is_a_trend(tmp_path, ablation, path, is_log):
    trends = from_ablation(varied(tmp_path, **ablation), trends_of)
    assert {(one.axis.path, one.axis.is_log) for one in trends} == ({(path, is_log)} if path else set())


@pytest.mark.slow
def test_a_trend_is_told_in_a_sentence_a_table_and_results_json(tmp_path):
    grid = {"distill.lr": [3e-3, 1e-3, 1e-4, 1e-6]}
    study = bench(tmp_path, seeds=[0, 1, 2], ablations={"one": {"grid": grid}})
    study.commit(*study.plan().cells)
    trends = from_ablation(study, trends_of)
    assert len(trends) == 4
    folder = write_report(study.plan())
    recorded = json.loads((folder / "results.json").read_text())["trends"]
    table = lines(from_ablation(study, trend_table), "tables/one-trend.csv")
    assert [float(one["p_holm"]) for one in table] == [one["p_holm"] for one in recorded]
    assert [one["trend"] for one in table] == [one.direction for one in trends]
    page = (folder / "report.html").read_text()
    clear = [one for one in trends if one.direction in ("rises", "falls")]
    assert clear
    sentence = re.search(r"<summary>(From .*?)</summary>", page)[1]
    assert sentence.count(" rises") + sentence.count(" falls") == len(clear)


def test_rows_that_rise_and_fall_are_said_to_follow_no_line(tmp_path):
    grid = {"distill.lr": [1e-2, 1e-3, 1e-4, 1e-5]}  # the middle two stand apart from the outer ones
    study = bench(tmp_path, ablations={"one": {"grid": grid}})
    cells = study.plan().cells
    for cell in cells:
        study.commit_evaluation(
            replace(cell, row=replace(cell.row, name="lr=0.01" if cell in cells[-3:-1] else "lr=1e-06"))
        )
    trends = from_ablation(study, trends_of)
    assert any(one.is_bent for one in trends)
    piece = from_ablation(study, trend_table)
    assert piece.markdown.count(", bent |") == sum(one.is_bent for one in trends)
    assert "in a line" in piece.fold or "no straight line" in piece.fold


def test_one_seed_gives_no_trend_but_a_suggestion(tmp_path):
    trends = from_ablation(varied(tmp_path, **RATES["one"]), trends_of)
    assert {one.direction for one in trends} <= {"suggestive", "inconclusive"}


def test_a_row_that_is_missing_is_left_out_of_the_trend_and_told(tmp_path):
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": [1e-2, 1e-3, 3e-4, 1e-5]}}})
    *done, last = study.plan().cells
    study.commit(*done)
    study.fail(last.evaluate, "oom", "out of memory")
    trends = from_ablation(study, trends_of)
    assert {min(one.axis.values) for one in trends} == {3e-4}
    assert "3, 1 left out" in from_ablation(study, trend_table).markdown
