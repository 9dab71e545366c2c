import csv
import gzip
import io
import json

import pytest
from support.exhibited import EVIL, problems_of
from support.report_study import bench

from ablate.report.exhibits.base import EXHIBITS
from ablate.results.collect import collect


def committed(root, **how):
    study = bench(root, ablations={"rates": {"grid": {"distill.lr": [1e-3, 3e-4]}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell, **how)
    return collect(study.plan())


def piece(results, name="flips"):
    return EXHIBITS[name](results, results.ablations[0])


def rows_of(results):
    return list(csv.DictReader(io.StringIO(piece(results).files["tables/rates-flips.csv"].decode())))


def test_a_question_stands_on_the_page_in_words_with_both_answers_and_both_log_probabilities(tmp_path):
    results = committed(tmp_path, has_choices=True)
    shown = piece(results)
    assert shown.fold
    for row in rows_of(results)[:12]:
        assert row["question"] in shown.html
        assert row["right_text"].strip() in shown.html
        assert row["other_text"].strip() in shown.html
        for name in ("right_logprob_plus", "right_logprob_minus", "other_logprob_plus", "other_logprob_minus"):
            assert f"{float(row[name]):.2f}".replace("-", "\N{MINUS SIGN}") in shown.html
    assert "before ablate kept" not in shown.html


def test_evaluations_of_before_words_were_kept_say_so_and_name_choices_by_their_numbers(tmp_path):
    results = committed(tmp_path, has_choices=True)
    for cell in results.cells:
        for path in (cell.folder / "out" / "questions").glob("*"):
            path.unlink()
    shown = piece(results)
    assert "before ablate kept the words" in shown.html
    assert "choice 1" in shown.html
    assert "before ablate kept the words" in shown.markdown


def test_nothing_in_a_question_becomes_markup_or_hides(tmp_path):
    results = committed(tmp_path, has_choices=True)
    evil = f"{EVIL} \N{RIGHT-TO-LEFT OVERRIDE}=cmd"
    for path in {path for cell in results.cells for path in (cell.folder / "out" / "questions").glob("*")}:
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        asked = [line | {"question": evil, "choices": [evil] * len(line["choices"])} for line in lines]
        path.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in asked).encode()))
    shown = piece(results)
    assert problems_of(shown) == []
    assert "&lt;script&gt;" in shown.html
    assert "<script>" not in shown.markdown
    for text in (shown.html, shown.markdown, shown.files["tables/rates-flips.csv"].decode()):
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text


def test_without_scripts_every_question_is_there_and_no_field_to_search_in(tmp_path):
    shown = piece(committed(tmp_path, has_choices=True))
    assert "<input" not in shown.html
    assert "hidden" not in shown.html


def test_a_large_study_has_a_dozen_questions_of_each_ablation_on_its_page_and_the_rest_in_the_file(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("ablate.report.exhibits.flipped_questions.MOST_ON_PAGE", 12)
    results = committed(tmp_path, has_choices=True)
    assert piece(results).html.count('class="calm"') <= 12 < len(rows_of(results))


def test_the_table_of_calibration_has_the_numbers_of_results_json(tmp_path):
    from ablate.results import calibration

    results = committed(tmp_path, has_choices=True)
    shown = piece(results, "calibration")
    records = list(calibration.records(results))
    assert {record["metric"] for record in records} == {"hellaswag/acc", "commonsense_qa/acc"}
    table = list(csv.DictReader(io.StringIO(shown.files["tables/rates-calibration.csv"].decode())))
    assert [float(line["ece"]) for line in table] == pytest.approx([record["ece"] for record in records])
    assert all(f"{record['ece']:.3f}" in shown.html for record in records)
    assert "its acc is a share of the probability" in shown.html


def test_a_table_of_subjects_says_that_it_decides_nothing(tmp_path):
    shown = piece(committed(tmp_path, has_choices=True), "subjects")
    assert "decides nothing" in shown.html
    assert "subject 3" in shown.html
    assert not any(word in shown.html for word in ("better", "worse", "suggestive"))
