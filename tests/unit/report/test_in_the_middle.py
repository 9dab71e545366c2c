"""A report in the middle of a run: how far everything is, in the table of rows, in one of its own and in results."""

import csv
import io

import pytest
from support.shown_stages import MadeUp
from support.shown_studies import planned, shown, trainings

from ablate.report.exhibits.base import OVERVIEWS
from ablate.report.page import report_files
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.progress import progress_of


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return shown("running", tmp_path_factory.mktemp("running"), share=0.02)


@pytest.fixture(scope="module")
def page(plan):
    return report_files([collect(plan)])["report.md"].decode()


def test_each_cell_that_is_begun_tells_its_step_its_share_and_where_it_goes_on(plan):
    by_name = {one.cell.cell.name: one for one in progress_of(collect(plan))}
    assert {name.partition("/")[0] for name in by_name} == {"learning_rate", "kd_ratio"}
    first, second, third = (by_name[f"learning_rate/lr={lr}@0"] for lr in ("0.001", "0.0003", "0.0001"))
    assert (first.state, first.at.step, first.at.steps, first.at.resumable_from) == ("running", 120, 404, 100)
    assert (second.state, second.at.step, second.at.resumable_from) == ("running", 61, None)
    assert (third.state, third.at.step, third.at.resumable_from) == ("waiting", 210, 200)
    assert first.at.share == pytest.approx(120 / 404)
    assert first.at.eta_s == pytest.approx(284 * 1.3, rel=0.1)  # 1.3 s a step
    assert third.at.eta_s is None


def test_a_cell_that_shares_a_training_with_another_is_as_far_as_that(plan):
    by_name = {one.cell.cell.name: one for one in progress_of(collect(plan))}
    assert by_name["kd_ratio/kd_ratio=0.5@0"].at == by_name["learning_rate/lr=0.0003@0"].at


def test_cells_of_which_nothing_is_begun_say_so(plan):
    by_name = {one.cell.cell.name: one for one in progress_of(collect(plan))}
    assert not by_name["kd_ratio/kd_ratio=1.0@0"].at.is_begun
    assert str(by_name["kd_ratio/kd_ratio=1.0@0"].at) == ""


def test_rows_tell_how_far_they_are_where_scores_will_stand(page):
    assert "| KD, lr=0.001 | running: step 120 of 404 (30 %), 6 min left, resumable from step 100 |" in page
    assert "| KD, lr=0.0001 | waiting: stopped at step 210 of 404 (52 %), resumable from step 200 |" in page


def test_what_runs_stands_on_page_1(page):
    assert "### What runs: 2 stages, at most " in page.partition("### What to ship")[0]
    assert page.count("What runs: 2 stages") == 1


def test_what_runs_is_a_table_of_numbers_too(plan):
    piece = OVERVIEWS["running"](collect(plan))
    lines = list(csv.DictReader(io.StringIO(piece.files["tables/progress.csv"].decode())))
    assert [(line["State"], line["Step"], line["Steps"]) for line in lines] == [
        ("running", "120", "404"),
        ("running", "61", "404"),
        ("stopped", "210", "404"),
    ]
    assert lines[1]["Cells"].split() == ["learning_rate/lr=0.0003@0", "kd_ratio/kd_ratio=0.5@0"]


def test_what_was_stopped_is_folded_up_once_nothing_runs(tmp_path):
    plan = planned("running", tmp_path)
    MadeUp(plan, dict).run(trainings(plan, "")[0], 150, saved=140, is_live=False)
    piece = OVERVIEWS["running"](collect(plan))
    assert piece.fold == "What was begun and stopped: 1 stage"
    assert "step 150 of 404 (37 %)" in piece.html


def test_a_finished_study_tells_nothing_of_what_runs(tmp_path):
    assert OVERVIEWS["running"](collect(shown("grid", tmp_path, share=0.002, seeds=[0]))) is None


def test_a_study_of_which_nothing_is_begun_has_a_report(tmp_path):
    page = report_files([collect(planned("running", tmp_path))])["report.md"].decode()
    assert "0 of 14 cells done, 14 waiting" in page


def test_a_report_is_written_anew_when_a_training_has_come_further(tmp_path):
    plan = planned("running", tmp_path)
    results = MadeUp(plan, dict)
    stage = trainings(plan, "")[0]
    attempt = results.run(stage, 20)
    page = (write_report(plan) / "report.md").read_text()
    assert "step 20 of 404" in page
    results.go_on(attempt, stage, 25)
    assert "step 25 of 404" in (write_report(plan) / "report.md").read_text()
