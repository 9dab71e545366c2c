"""What page 1 says beside the answers: seeds once, what to ship, what went wrong, what to try next."""

import re

import pytest
from support.report_study import bench
from support.situations import RATES as AXIS
from support.situations import RATIOS, begun

from ablate.report.front_text import cost_text, how_sure, next_text, odd_text, ship_text
from ablate.report.next_steps import edges
from ablate.report.words import say
from ablate.results.collect import collect
from ablate.results.shipping import Shipping

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}}


def finished(root, **changes):
    study = bench(root, **({"ablations": RATES} | changes))
    study.commit(*study.plan().cells)
    return collect(study.plan())


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("one"))


def test_one_seed_is_said_once_with_what_three_would_show_and_cost(one_seed):
    sure = " ".join(how_sure(one_seed))
    assert sure.startswith("TruthfulQA mc2 (accuracy) is the metric that decides.")
    assert sure.count("trained once") == 1
    assert re.search(
        r"With 3 seeds \(\d+ \w+ more\), a true difference of [\d.]+ points would be clear in four studies", sure
    )
    assert "not the luck of the training seed" in sure


def test_several_seeds_are_counted_and_no_more_are_asked_for(tmp_path):
    sure = how_sure(finished(tmp_path, seeds=[0, 1, 2]))
    assert sure[1:] == ["Every trained row is the mean of 3 seeds.", say("sure.both")]


def test_rows_with_one_seed_yet_are_counted(tmp_path):
    study = bench(tmp_path, ablations=RATES, seeds=[0, 1])
    study.commit(*(cell for cell in study.plan().cells if cell.row.name != "lr=1e-05" or cell.seed == 0))
    sure = how_sure(collect(study.plan()))
    assert sure[1] == "So far 3 of 4 trained rows are the mean of 2 seeds."
    assert sure[2].startswith("One seed so far: 1 of 4 trained rows.")


def test_before_anything_is_done_page_1_says_what_is_left_and_nothing_else(tmp_path):
    results = collect(bench(tmp_path, ablations=RATES).plan())
    assert how_sure(results) == ship_text(results) == odd_text(results) == cost_text(results) == []
    assert next_text(results) == ["Finish the run: 7 cells to go."]


def test_the_student_to_ship_is_called_by_its_recipe(one_seed):
    (text,) = ship_text(one_seed)
    assert text.startswith("Ship the fine-tuned student (50.7 % on TruthfulQA mc2): no distillation is clearly better.")
    assert "The others: distillation with a learning rate of 0.001 and distillation with" in text


def test_a_row_that_could_not_compete_is_not_said_to_be_behind(tmp_path):
    results = finished(tmp_path)
    one, other = (row for row in results.ablations[0].rows if row.row.name in ("lr=0.001", "lr=0.0003"))
    alone = Shipping(results.ablations[0].columns[0], one, (one,), one, one.done[0])
    results.memo["shipping"] = (alone, alone._replace(left_out=((other, "1 of 3 seeds"),)))
    whole, part = ship_text(results)
    assert "every other row is probably behind" in whole
    assert "it scores highest of those that can be compared" in part


def test_a_training_that_diverged_is_odd(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    *done, last = study.plan().cells
    study.commit(*done)
    study.diverge(last)
    text = "Distillation with a learning rate of 1e-05 diverged: its loss is no longer a number."
    assert text in odd_text(collect(study.plan()))
    assert not any("to go" in text for text in next_text(collect(study.plan())))


def test_what_went_wrong_with_one_model_is_odd_once_however_many_tables_show_it(tmp_path):
    fixed = {"set": {"distill.teacher": "baseline"}}
    ablations = {"one": RATES["one"] | fixed, "again": RATES["one"] | fixed | {"title": "Again"}}
    study = bench(tmp_path, ablations=ablations)
    cells = {cell.evaluate.key: cell for cell in study.plan().cells}
    last = next(cell for cell in cells.values() if cell.row.name == "lr=1e-05")
    study.commit(*(cell for cell in cells.values() if cell is not last))
    study.diverge(last)
    assert sum(" diverged" in text for text in odd_text(collect(study.plan()))) == 1


def test_a_value_that_another_table_goes_beyond_is_no_edge(tmp_path):
    one = begun(tmp_path / "one", AXIS)
    one.effect("best", "distill.lr", 2e-2, 4e-3, (8, 2, 14), "better", tried=3)
    other = begun(tmp_path / "other", {"grid": {"distill.lr": [1e-1, 4e-3]}})
    assert list(edges(one.facts(), [one.facts(), other.facts()])) == []


def test_an_axis_whose_best_value_is_its_last_is_to_go_on(tmp_path):
    one = begun(tmp_path, AXIS)
    one.effect("best", "distill.lr", 2e-2, 4e-3, (8, 2, 14), "better", tried=3)
    assert list(edges(one.facts())) == ["Try a learning rate above 0.02: the best one was the highest that was tried."]


def test_an_axis_whose_best_value_lies_inside_is_not(tmp_path):
    one = begun(tmp_path, AXIS)
    one.effect("best", "distill.lr", 1e-3, 4e-3, (-32, -44, -20), "worse", tried=3)
    one.effect("trend", "distill.lr", 2e-2, 1e-4, (9, 1, 17), "better")
    assert list(edges(one.facts())) == []


def test_a_ratio_of_1_can_go_no_further(tmp_path):
    one = begun(tmp_path, RATIOS)
    one.effect("trend", "distill.kd_ratio", 1.0, 0.25, (12, 3, 21), "better")
    assert list(edges(one.facts())) == []


def test_an_axis_of_which_nothing_is_clear_has_no_edge(tmp_path):
    one = begun(tmp_path, AXIS)
    one.effect("best", "distill.lr", 2e-2, 4e-3, (3, -4, 10), "inconclusive", tried=3)
    assert list(edges(one.facts())) == []


def test_a_question_without_a_verdict_is_said_to_be_open_with_what_more_seeds_cost(one_seed):
    texts = next_text(one_seed)
    assert any(text.startswith("Unclear: whether ") for text in texts)
    assert any(re.search(r"seeds: \[0, 1, 2\] in the study and run it again \(\d+ \w+ more\)", text) for text in texts)


def test_what_is_recommended_before_the_study_is_done_says_that_it_may_change(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    study.commit(*study.plan().cells[:-1])
    (text,) = ship_text(collect(study.plan()))
    assert text.endswith("The study is not finished, so this may change.")


def test_values_that_are_no_numbers_have_no_edge_to_go_beyond(tmp_path):
    losses = [{"name": "skew_forward_kl", "beta": beta} for beta in (0.1, 0.2, 0.3)]
    study = bench(tmp_path, ablations={"losses": {"grid": {"distill.loss": losses}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell)
    assert not any("Try" in text for text in next_text(collect(study.plan())))
