"""What is said to be worth shipping: every recipe competes once, fairly, and the cheapest of the equals is named."""

import pytest
from support import report_study
from support.report_study import bench

from ablate.results.best_rows import contests_of
from ablate.results.collect import Metric, collect
from ablate.results.row_costs import row_cost
from ablate.results.shipping import shipping_of

TABLES = {
    "rates": {"grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}},
    "ratios": {"grid": {"distill.kd_ratio": [0.25, 0.5]}},
    "other": {"set": {"distill.pair": "qwen2"}},
}


def commit(study, *cells):
    for cell in cells:
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell)
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    study = bench(tmp_path_factory.mktemp("shipped"), seeds=[0, 1], ablations=TABLES)
    commit(study, *study.plan().cells)
    return collect(study.plan())


def value(row, metric):
    """The mean over seeds, from what lm-eval said."""
    task, name = metric
    values = [cell.evaluation["tasks"][task]["metrics"][name]["value"] for cell in row.done]
    return sum(values) / len(values)


def test_each_pair_ships_its_own_best_and_its_control_competes(results):
    small, close = shipping_of(results)
    rows = {
        cell.cell.evaluate.key: row
        for ablation in results.ablations
        for row in ablation.rows
        if row.row.model in ("distill", "student/finetuned") and row.row.setting.pair == "llama"
        for cell in row.cells
    }
    metric = results.ablations[0].primary
    assert small.metric == close.metric == metric == Metric("truthfulqa_mc2", "acc")
    assert value(small.best, metric) == pytest.approx(max(value(row, metric) for row in rows.values()))
    assert small.best in small.equals
    assert {row.row.setting.pair for row in close.equals} == {"qwen2"}
    keys = [tuple(cell.cell.evaluate.key for cell in row.cells) for row in small.equals]
    assert len(set(keys)) == len(keys)


def test_the_cheapest_of_the_equals_is_named_with_its_first_seed(results):
    for one in shipping_of(results):
        costs = {row.row.name: row_cost(results, row).whole_s for row in one.equals}
        assert costs[one.cheapest.row.name] == min(costs.values())
        assert one.cell is one.cheapest.cells[0]
        assert one.cell.is_done


def test_a_row_of_fewer_seeds_is_no_match_for_the_others(tmp_path):
    study = bench(tmp_path, seeds=[0, 1], ablations={"rates": TABLES["rates"]})
    lucky = next(cell for cell in study.plan().cells if cell.name == "rates/lr=0.001@1")
    commit(study, *(cell for cell in study.plan().cells if cell is not lucky and cell.name != lucky.name))
    (one,) = shipping_of(collect(study.plan()))
    assert "lr=0.001" not in {row.row.name for row in one.equals}
    assert [(row.row.name, why) for row, why in one.left_out] == [("lr=0.001", "1 of 2 seeds")]


def test_of_one_seed_that_is_done_everywhere_all_rows_compete(tmp_path):
    study = bench(tmp_path, seeds=[0, 1], ablations={"rates": TABLES["rates"]})
    commit(study, *(cell for cell in study.plan().cells if cell.seed != 1))
    (one,) = shipping_of(collect(study.plan()))
    assert one.left_out == ()
    assert one.cell.cell.seed == 0


def test_where_lower_is_better_the_lowest_is_shipped(tmp_path):
    def lower(evaluation):
        for task in evaluation["tasks"].values():
            task["higher_is_better"] = dict.fromkeys(task["metrics"], False)

    study = bench(tmp_path, ablations={"rates": TABLES["rates"]})
    for cell in study.plan().cells:
        study.commit_evaluation(cell, edit=lower)
    results = collect(study.plan())
    (one,) = shipping_of(results)
    rows = [row for row in results.ablations[0].rows if not row.row.model.startswith("teacher/")]
    assert value(one.best, one.metric) == pytest.approx(min(value(row, one.metric) for row in rows))


def test_a_student_that_no_training_improves_is_shipped_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(report_study, "SKILL", {**report_study.SKILL, "student/baseline": 0.9})
    study = bench(tmp_path, ablations={"rates": TABLES["rates"]})
    commit(study, *study.plan().cells)
    (one,) = shipping_of(collect(study.plan()))
    assert one.best is one.cheapest
    assert one.cheapest.row.model == "student/baseline"


def test_before_two_rows_can_be_compared_nothing_is_shipped(tmp_path):
    study = bench(tmp_path, ablations={"rates": TABLES["rates"]})
    assert shipping_of(collect(study.plan())) == ()
    commit(study, study.plan().cells[-1])
    assert shipping_of(collect(study.plan())) == ()


def test_what_is_shipped_is_told_from_the_best_in_no_table(results):
    for one in shipping_of(results):
        contests = [contest for ablation in results.ablations for contest in contests_of(results, ablation)]
        out = [
            each.row
            for contest in contests
            if contest.metric == one.metric
            for each in contest.candidates
            if not each.may_be_best
        ]
        assert not {row.run for row in out} & {row.run for row in one.equals}
