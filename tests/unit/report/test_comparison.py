"""Two runs of one study held against each other: what moved, what is the same, what cannot be compared."""

import json
import shutil
import sys

import numpy as np
import pytest
from support.report_study import bench, without_numbers

from ablate.cli.app import main
from ablate.report.comparison_page import summary_text
from ablate.report.write import write_comparison
from ablate.results.collect import collect
from ablate.results.rerun_comparison import lacking, moves


def finished(root, **changes):
    study = bench(root, **changes)
    for cell in study.plan().cells:
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    return study


def test_a_run_held_against_its_copy_has_moved_nowhere(tmp_path):
    here = collect(finished(tmp_path / "here").plan())
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    there = collect(bench(tmp_path / "there").plan())
    compared = moves(here, there)
    assert compared
    assert all(one.is_same and not one.has_moved and one.contrast.value == 0 for one in compared)
    cells = {(one.row.cells[0].cell.evaluate.key, one.metric) for one in compared}
    assert len(cells) == len(compared)  # each once, however many ablations show it


def test_the_same_stages_with_another_number_have_moved_however_little(tmp_path):
    here = finished(tmp_path / "here")
    there, edited = bench(tmp_path / "there"), []
    for cell in there.plan().cells:
        if not there.store.done(cell.evaluate):
            there.commit_evaluation(cell, edit=None if edited else lighter)
            edited.append(cell.evaluate.key)
    compared = moves(collect(here.plan()), collect(there.plan()))
    assert {one.row.cells[0].cell.evaluate.key for one in compared if one.has_moved} == {edited[0]}


def lighter(results):
    for task in results["tasks"].values():
        for metric in task["metrics"].values():
            metric["value"] -= 1e-9


def test_another_training_is_compared_question_by_question(tmp_path):
    here = collect(finished(tmp_path / "here").plan())
    there = collect(finished(tmp_path / "there", seeds=[5]).plan())
    (one, *_) = [one for one in moves(here, there) if one.row.row.model == "distill" and one.metric.name == "acc"]
    other = next(row for ablation in there.ablations for row in ablation.rows if row.row.name == one.row.row.name)
    mine, theirs = (
        np.array([json.loads(line)["scores"][one.metric.name] for line in path.read_text().splitlines()])
        for path in (row._samples(one.metric)[0] for row in (one.row, other))
    )
    assert not one.is_same
    assert one.contrast.value == pytest.approx((mine - theirs).mean())
    assert one.p_holm >= one.contrast.p


def test_rows_and_answers_that_the_other_run_lacks_are_said(tmp_path):
    here = collect(finished(tmp_path / "here").plan())
    there = collect(bench(tmp_path / "there", ablations={"qwen2": {"set": {"distill.pair": "qwen2"}}}).plan())
    compared = moves(here, there)
    assert {one.why for one in compared} == {"not in the other run", "not done"}
    assert not any(one.has_moved for one in compared)
    assert summary_text(compared, lacking(here, there)).endswith(f"{len(compared)} cannot be compared.")
    assert "Only in the other run: learning_rate/" in summary_text([], lacking(there, here))


@pytest.mark.parametrize("has_nan_there", [True, False])
def test_a_score_that_is_no_number_has_not_moved_and_the_record_stays_json(tmp_path, has_nan_there):
    here, there = broken(tmp_path / "here"), (broken if has_nan_there else finished)(tmp_path / "there")
    write_comparison(collect(here.plan()), collect(there.plan()), tmp_path)
    text = (tmp_path / "comparison.json").read_text()
    records = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["moves"]
    nans = [record for record in records if record["here"] == "NaN"]
    assert nans
    assert not any(record["moved"] for record in nans)
    assert {record["not comparable"] for record in nans} == {"NaN"}


def broken(root):
    """The scores of its first cell are no numbers."""
    study = bench(root)
    for number, cell in enumerate(study.plan().cells):
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell, edit=None if number else without_numbers)
    return study


def test_the_page_tells_each_row_and_escapes_what_it_is_told(tmp_path):
    here = finished(tmp_path / "<here>", title="<script>alert(1)</script>")
    page = write_comparison(collect(here.plan()), collect(here.plan()), tmp_path)
    assert "<script>" not in page.read_text()
    text = (tmp_path / "comparison.md").read_text()
    records = json.loads((tmp_path / "comparison.json").read_text())["moves"]
    assert text.count("same stages") >= len(records) > 0


@pytest.mark.parametrize(
    ("other", "message"), [(".", "is the root itself"), ("nowhere", "there is no runs/ in it"), ("empty", "small")]
)
def test_what_cannot_be_held_against_is_told_before_anything_is_written(tmp_path, monkeypatch, capsys, other, message):
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    here = finished(tmp_path)
    here.store.record_study("small", {"study": here.study.model_dump(mode="json"), "source": "x", "overrides": []})
    asked = ["ablate", "--root", str(tmp_path), "report", "small", "--compare", str(tmp_path / other)]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "reports").exists()
