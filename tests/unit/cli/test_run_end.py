"""How `ablate run` ends: the answers and the table of the metric that decides, before the line with the report."""

import json
import math
from pathlib import Path

import pytest
from support.golden import half_done
from support.report_study import Bench, bench

from ablate.cli.run_end_view import print_end
from ablate.report.findings_text import headline
from ablate.report.results_json import json_bytes, results_record
from ablate.results.collect import collect


def end_of(study: Bench, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / "results.json").write_bytes(json_bytes(results_record(collect(study.plan()))))
    print_end(folder, "small")
    return capsys.readouterr().out


def test_it_says_each_question_its_answer_and_every_row(tmp_path, capsys):
    study = bench(tmp_path / "root")
    for cell in study.plan().cells:
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    printed, results = end_of(study, tmp_path, capsys), collect(study.plan())
    first = results.ablations[0]
    assert printed.index("Which learning rate suits distillation?") < printed.index(headline(results, first))
    for row in first.rows:
        samples = [json.loads(line) for line in row.done[0].samples("truthfulqa_mc2").read_text().splitlines()]
        scores = [sample["scores"]["acc"] for sample in samples]
        (line,) = (line for line in printed.split("A closer pair")[0].splitlines() if row.row.label in line)
        assert f"{math.fsum(scores) / len(scores):.3f}" in line
    assert "trained once" in printed


def test_a_reference_row_stands_in_the_first_table_alone_and_a_control_in_its_own(tmp_path, capsys):
    study = bench(tmp_path / "root", ablations={
        "rates": {"grid": {"distill.lr": [1e-3]}}, "ratios": {"grid": {"distill.kd_ratio": [0.3]}}
    })  # fmt: skip
    for cell in study.plan().cells:
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    printed = end_of(study, tmp_path, capsys)
    references = {row.row.name: row.row.label for row in collect(study.plan()).ablations[0].rows[:4]}
    assert {name: printed.count(f"  {label}") for name, label in references.items()} == {
        "teacher/baseline": 1, "teacher/finetuned": 1, "student/baseline": 1, "student/finetuned": 2
    }  # fmt: skip


def test_what_is_not_done_is_told_in_its_row(tmp_path, capsys):
    printed = end_of(half_done(tmp_path / "root"), tmp_path, capsys)
    (line,) = (line for line in printed.splitlines() if "lr=0.0003" in line)
    assert line.rstrip().endswith("failed")
    assert "No answer yet: 0 of 5 cells are done." in printed.split("A closer pair")[1]


def test_of_a_long_study_the_best_rows_stand_for_all(tmp_path, capsys):
    rates = [number / 1e5 for number in range(1, 41)]
    study = bench(tmp_path / "root", ablations={"rates": {"grid": {"distill.lr": rates}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell)
    printed = end_of(study, tmp_path, capsys)
    assert sum("lr=" in line for line in printed.splitlines() if "±" in line) <= 3
    assert "ablate results small --metric '*'" in printed


def test_a_run_does_not_fail_by_its_last_words(tmp_path, capsys):
    for text in ("", "[]", '{"summary": {"ship": [], "ablations": [{"rows": [{}]}]}}', '{"summary": 3}'):
        (tmp_path / "results.json").write_text(text)
        print_end(tmp_path, "small")
        assert "The results are in the report" in capsys.readouterr().out
