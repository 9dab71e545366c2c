"""Marks of trainings that went wrong and scores that mean little: each seen where it is, none on a healthy study."""

import json
import random
from pathlib import Path

import example
import numpy as np
import pytest
from support.report_study import bench
from support.scored_cells import commit_losses, commit_scores

from ablate.planning.project import project_of
from ablate.report.results_json import results_record
from ablate.results.chance import chance_level
from ablate.results.collect import Metric, collect
from ablate.results.marks import marks_of

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4]}}}
SHARES = {"teacher/baseline": 0.7, "teacher/finetuned": 0.8, "student/baseline": 0.5, "student/finetuned": 0.6}
ODD = "lr=0.001"
"""The row that has the trouble."""


def scores_of(share, name, num=400):
    draw = random.Random(name)
    return np.array([float(draw.random() < share) for _ in range(num)])


def falling(name, start=2.0, end=1.0, steps=200):
    draw = random.Random(name)
    return [end + (start - end) * 0.97**step + draw.gauss(0, 0.05) for step in range(steps)]


def study_with(
    tmp_path, *, share=0.65, losses=None, class_losses=None, held_out=None, choices=4, seeds=(0,), **changes
):
    """-> marks of a study that is healthy but for what is given, which its first rate has."""
    study = bench(tmp_path, seeds=list(seeds), ablations={"one": RATES["one"] | changes})
    for cell in study.plan().cells:
        is_odd, name = cell.row.name == ODD, cell.name
        own = SHARES.get(cell.row.model, 0.65)
        commit_scores(study, cell, {"hellaswag": {"acc": scores_of(share if is_odd else own, name)}}, choices=choices)
        if cell.trained and not study.store.done(cell.trained):
            commit_losses(
                study,
                cell,
                (losses if is_odd else None) or falling(name),
                class_losses=(class_losses if is_odd else None) or falling(f"class {name}"),
                held_out=held_out if is_odd and held_out else 1.2,
            )
    results = collect(study.plan())
    return marks_of(results, results.ablations[0])


def kinds(marks):
    return [(mark.row.row.name, mark.kind) for mark in marks]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_healthy_study_has_none(tmp_path, seeds):
    assert study_with(tmp_path, seeds=seeds) == ()


def test_a_loss_that_ends_above_where_it_began_has_diverged(tmp_path):
    (mark,) = study_with(tmp_path, losses=falling("up", start=1.0, end=1.5))
    assert kinds([mark]) == [(ODD, "diverged")]
    assert mark.value == pytest.approx(1.5, abs=0.05)
    assert mark.beside == pytest.approx(1.05, abs=0.1)


def test_a_loss_that_fell_and_rose_again_but_not_above_its_beginning_has_not(tmp_path):
    assert study_with(tmp_path, losses=[*falling("a", steps=100), *([1.7] * 100)]) == ()


def test_a_loss_that_is_flat_within_its_noise_has_not(tmp_path):
    draw = random.Random(0)
    assert study_with(tmp_path, losses=[1 + draw.gauss(0, 0.3) for _ in range(200)]) == ()


def test_a_loss_that_ends_a_little_above_where_it_began_has_not(tmp_path):
    draw = random.Random(0)
    assert study_with(tmp_path, losses=[1 + 0.05 * step / 200 + draw.gauss(0, 0.005) for step in range(200)]) == ()


def test_a_loss_that_is_no_number_has_diverged_in_whichever_state_its_cell_is(tmp_path):
    (mark,) = study_with(tmp_path, losses=[*falling("a", steps=150), *["NaN"] * 50])
    assert (kinds([mark]), mark.value) == ([(ODD, "diverged")], None)


def test_a_training_that_stopped_as_diverged_is_marked(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    odd = next(cell for cell in study.plan().cells if cell.row.name == ODD)
    study.diverge(odd)
    results = collect(study.plan())
    assert kinds(marks_of(results, results.ablations[0])) == [(ODD, "diverged")]


def test_the_loss_of_a_student_that_writes_its_own_answers_may_rise(tmp_path):
    on_policy = {"set": {"distill.answers": "student"}}
    assert study_with(tmp_path, losses=falling("up", start=1.0, end=1.5), **on_policy) == ()


def test_who_has_lost_most_of_what_the_untrained_student_knew_has_collapsed(tmp_path):
    (mark,) = study_with(tmp_path, share=0.26)
    assert kinds([mark]) == [(ODD, "collapsed")]
    assert mark.value == pytest.approx(scores_of(0.26, f"one/{ODD}@0").mean())
    assert mark.low < mark.value < mark.high
    assert mark.against.row.name == "student/baseline"
    assert mark.beside == pytest.approx(scores_of(0.5, "one/student/baseline").mean())


def test_who_is_somewhat_below_the_untrained_student_has_not(tmp_path):
    """0.44 beside 0.5 is clearly worse over many questions, and no collapse."""
    assert study_with(tmp_path, share=0.42) == ()


def test_without_choices_whoever_lost_half_of_the_score_has_collapsed(tmp_path):
    assert kinds(study_with(tmp_path / "a", share=0.15, choices=None)) == [(ODD, "collapsed")]
    assert study_with(tmp_path / "b", share=0.3, choices=None) == ()


def test_without_the_untrained_student_the_control_stands_for_it(tmp_path):
    (mark,) = study_with(tmp_path, share=0.26, references=["teacher/finetuned", "student/finetuned"])
    assert (mark.kind, mark.against.row.name) == ("collapsed", "student/finetuned")


def test_a_score_that_guessing_would_reach_is_marked_with_what_that_is(tmp_path):
    (mark,) = study_with(tmp_path, share=0.5, choices=2)
    assert kinds([mark]) == [(ODD, "chance")]
    assert (mark.metric, mark.beside) == (Metric("hellaswag", "acc"), 0.5)
    assert mark.low <= 0.5 < mark.value + 0.05


def test_chance_is_the_mean_over_questions_of_one_in_their_choices(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    cell = study.plan().cells[0]
    lines = [
        {
            "doc_id": i,
            "doc_hash": str(i),
            "scores": {"acc": 1.0, "acc_norm": 0.0, "f1": 1.0},
            "loglikelihoods": [0.0] * num,
        }
        for i, num in enumerate((2, 4, 5))
    ]
    tasks = {"hellaswag": {"n": 3, "metrics": {name: {"value": 1.0} for name in ("acc", "acc_norm", "f1")}}}
    samples = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = {"out/results.json": json.dumps({"tasks": tasks}).encode(), "out/samples/hellaswag.jsonl": samples}
    study.commit_files(cell.evaluate, files)
    results = collect(study.plan())
    (done,) = [one for one in results.cells if one.is_done]
    assert chance_level(results, done, Metric("hellaswag", "acc_norm")) == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)
    assert chance_level(results, done, Metric("hellaswag", "f1")) is None
    assert chance_level(results, done, Metric("gsm8k", "exact_match")) is None


def test_scores_between_0_and_1_have_no_chance_level(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    cell = study.plan().cells[0]
    commit_scores(study, cell, {"truthfulqa_mc2": {"acc": np.linspace(0, 1, 40)}}, choices=4)
    results = collect(study.plan())
    (done,) = [one for one in results.cells if one.is_done]
    assert chance_level(results, done, Metric("truthfulqa_mc2", "acc")) is None


def test_who_fits_its_rows_better_than_the_control_and_unseen_ones_worse_is_over_fitted(tmp_path):
    (mark,) = study_with(tmp_path, class_losses=falling("low", end=0.5), held_out=1.6)
    assert kinds([mark]) == [(ODD, "over-fitted")]
    assert (mark.value, mark.beside, mark.against.row.name) == (1.6, 1.2, "student/finetuned")


@pytest.mark.parametrize(
    ("end", "held_out"),
    [(0.5, 1.2), (0.5, 1.0), (1.0, 1.6), (1.3, 1.6)],
    ids=["unseen rows as well", "unseen rows better", "its own no better", "its own worse"],
)
def test_one_of_the_two_alone_is_no_over_fitting(tmp_path, end, held_out):
    assert study_with(tmp_path, class_losses=falling("low", end=end), held_out=held_out) == ()


def test_the_embedded_study_has_one_rate_that_collapsed_and_nothing_else(tmp_path):
    example.unpack(tmp_path)
    results = collect(project_of(Path("tiny"), tmp_path).plan(is_online=False))
    (collapsed,) = results_record(results)["marks"]
    assert (collapsed["ablation"], collapsed["row"], collapsed["kind"]) == ("learning_rate", "lr=0.02", "collapsed")
    assert (collapsed["metric"], collapsed["against"]) == ("tiny_letters/acc", "student/baseline")
    assert collapsed["value"] < 0.21 < collapsed["beside"]
