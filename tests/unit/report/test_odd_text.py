"""What nobody would expect of scores is said on page 1, each thing once."""

import pytest
from support.report_study import bench

from ablate.report.front_text import odd_text
from ablate.results.collect import collect
from ablate.results.gap_recovered import gap_of

TWO = {name: {"title": name, "grid": {"distill.teacher": ["baseline", "finetuned"]}} for name in ("one", "two")}


def scored(root, share_of, **changes):
    """-> a finished study; by `share_of` a row of the first questions is right, and none of the others."""
    study = bench(root, **({"ablations": TWO, "report": {"primary": "commonsense_qa/acc"}} | changes))
    for cell in study.plan().cells:
        if cell.trained:
            study.commit_training(cell)
        study.commit_evaluation(cell, share=share_of(cell.row))
    return collect(study.plan())


SHARES = {
    "teacher/baseline": 0.5,
    "teacher/finetuned": 0.9,
    "student/baseline": 0.3,
    "student/finetuned": 0.6,
}


def shares(**changes):
    known = SHARES | {name.replace("_", "/"): share for name, share in changes.items()}
    return lambda row: known.get(row.model, 0.75)


def test_a_teacher_that_is_not_ahead_of_its_student_is_odd_and_said_once(tmp_path):
    results = scored(tmp_path, shares())
    texts = [text for text in odd_text(results) if "not ahead" in text]
    assert texts == [
        "The baseline teacher (pair llama) is not ahead of fine-tuning alone on CommonsenseQA: 50.0 % against 60.0 %."
    ]
    row = next(row for row in results.ablations[0].rows if row.row.name == "teacher=baseline")
    assert gap_of(results, results.ablations[0], row, results.ablations[0].primary).ahead == pytest.approx(-0.1)


def test_teachers_that_are_ahead_are_not(tmp_path):
    texts = odd_text(scored(tmp_path, shares(teacher_baseline=0.8)))
    assert not any("not ahead" in text for text in texts)


def test_fine_tuning_that_made_a_model_worse_is_odd(tmp_path):
    texts = odd_text(scored(tmp_path, shares(student_baseline=0.8)))
    assert "Fine-tuning harmed the student (pair llama): 60.0 % on CommonsenseQA, after 80.0 % without it." in texts
    assert not any("harmed the teacher" in text for text in texts)


def test_a_row_that_scores_just_as_its_control_is_odd_and_said_once_for_all_tables(tmp_path):
    texts = [
        text for text in odd_text(scored(tmp_path, shares(student_finetuned=0.75))) if "as fine-tuning alone" in text
    ]
    assert len(texts) == len({"baseline", "finetuned"})
    assert all("answers every question of CommonsenseQA as fine-tuning alone does" in text for text in texts)


def test_a_study_as_one_expects_it_has_nothing_odd(tmp_path):
    assert odd_text(scored(tmp_path, shares(teacher_baseline=0.8))) == []
