"""Published scores beside ours: the difference, both errors, and in what the two were not made alike."""

import csv
import io
import json
import math

import pytest
from support.paths import STUDIES
from support.report_study import bench

from ablate.core.errors import AblateError
from ablate.report.exhibits.published_table import published_table
from ablate.report.exhibits.scores_table import scores_table
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.replication import replications_of
from ablate.study.published import read_published

FILE = """
source: a paper
columns: [hellaswag/acc, commonsense_qa/acc]
about:
  n: [10042, 1221]
  stderr: [none, 0.02]
  versions: {hellaswag: 2, commonsense_qa: 1}
  made:
    evaluate: {num_fewshot: 5}
    train: {warmup_steps: 50}
    distill: {lora: {target_modules: [v_proj, q_proj]}}
  pairs:
    llama: {distill: {batch_size: 64}}
llama:
  student/baseline: [0.4517, 0.5536]
  student/finetuned: {scores: [0.4595, 0.5528], stderr: [0.006, none]}
  kd:
    - {lr: 1.0e-3, scores: [0.4535, 0.5258], stderr: [0.007, 0.03]}
"""
RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4]}}}


def study(root, text=FILE, **changes):
    path = root / "published.yaml"
    path.write_text(text)
    given = {"ablations": RATES, "distill": {"lora": {"target_modules": ["q_proj", "v_proj"]}}, **changes}
    finished = bench(root, published=str(path), **given)
    finished.commit(*finished.plan().cells)
    return finished


def replications(finished):
    results = collect(finished.plan())
    pairs = {(one.row.row.name, str(one.metric)): one for one in replications_of(results, results.ablations[0])}
    return results, pairs


@pytest.fixture
def beside(tmp_path):
    return replications(study(tmp_path))[1]


def test_a_published_error_is_the_rows_own_else_the_columns_else_that_of_so_many_questions(beside):
    stderrs = {name: one.theirs.stderr for name, one in beside.items()}
    assert stderrs == {
        ("student/baseline", "hellaswag/acc"): pytest.approx(math.sqrt(0.4517 * 0.5483 / 10041)),
        ("student/baseline", "commonsense_qa/acc"): 0.02,
        ("student/finetuned", "hellaswag/acc"): 0.006,
        ("student/finetuned", "commonsense_qa/acc"): 0.02,
        ("lr=0.001", "hellaswag/acc"): 0.007,
        ("lr=0.001", "commonsense_qa/acc"): 0.03,
    }


def test_an_error_from_the_number_of_questions_is_lm_evals_own(tmp_path):
    from lm_eval.api.metrics import mean_stderr

    text = f"columns: [hellaswag/acc]\nabout: {{n: [1221]}}\nllama: {{student/baseline: [{552 / 1221}]}}\n"
    _, beside = replications(study(tmp_path, text))
    (one,) = beside.values()
    assert one.theirs.stderr == pytest.approx(mean_stderr([1.0] * 552 + [0.0] * 669))


def test_the_error_of_the_difference_is_that_of_two_samples(beside):
    for one in beside.values():
        score = one.row.score(one.metric)
        assert one.difference == score.value - one.theirs.value
        assert one.se == pytest.approx(math.sqrt(score.stderr**2 + one.theirs.stderr**2))


def test_with_several_seeds_our_error_holds_their_noise(tmp_path):
    _, beside = replications(study(tmp_path, seeds=[0, 1, 2]))
    one = beside["lr=0.001", "commonsense_qa/acc"]
    assert one.stderr > one.row.score(one.metric).sd / math.sqrt(3) - 1e-12  # no clusters, so V_s and more
    assert len(one.row.done) == 3


def test_what_is_not_alike_is_told_for_the_parts_that_a_row_is_made_from(beside):
    assert {name: [difference.what for difference in one.unlike] for name, one in beside.items()} == {
        ("student/baseline", "hellaswag/acc"): ["evaluate.num_fewshot", "n", "task version"],
        ("student/baseline", "commonsense_qa/acc"): ["evaluate.num_fewshot", "n"],
        ("student/finetuned", "hellaswag/acc"): [
            "finetune_student.warmup_steps", "evaluate.num_fewshot", "n", "task version",
        ],
        ("student/finetuned", "commonsense_qa/acc"): ["finetune_student.warmup_steps", "evaluate.num_fewshot", "n"],
        ("lr=0.001", "hellaswag/acc"): [
            *("finetune_teacher.warmup_steps", "distill.warmup_steps", "distill.batch_size"),
            *("evaluate.num_fewshot", "n", "task version"),
        ],
        ("lr=0.001", "commonsense_qa/acc"): [
            *("finetune_teacher.warmup_steps", "distill.warmup_steps", "distill.batch_size"),
            *("evaluate.num_fewshot", "n"),
        ],
    }  # fmt: skip


def test_a_way_of_asking_that_is_not_the_usual_is_told_of_ours(tmp_path):
    own = {"task": "hellaswag", "limit": 100}
    asked = {"tasks": [own, "commonsense_qa"], "apply_chat_template": True}
    _, pairs = replications(study(tmp_path, evaluate=asked))
    for one in pairs.values():
        told = {unlike.what: unlike.ours for unlike in one.unlike if not unlike.is_told}
        assert told["evaluate.apply_chat_template"] is True
        assert list(told["evaluate.tasks"]) == [own]


def test_what_the_file_tells_is_held_against_ours_and_nothing_else(tmp_path):
    alike = FILE.replace("num_fewshot: 5", "num_fewshot: none").replace("warmup_steps: 50", "warmup_steps: 100")
    alike = alike.replace("batch_size: 64", "batch_size: 16").replace("[10042, 1221]", "[100, 80]")
    _, beside = replications(study(tmp_path, alike.replace("hellaswag: 2", "hellaswag: 1")))
    assert {one.unlike for one in beside.values()} == {()}


@pytest.mark.slow
def test_the_page_tells_both_errors_and_what_differs(tmp_path):
    finished = study(tmp_path)
    results, beside = replications(finished)
    piece = published_table(results, results.ablations[0])
    line = next(line for line in piece.markdown.splitlines() if line.startswith("| hellaswag | KD") or "KD, lr" in line)
    assert " ± 0.0070 |" in line
    assert "n = 100 (published: 10042); task version = 1 (published: 2); recipe" in line
    foot = scores_table(results, results.ablations[0]).markdown.replace("\\", "")
    assert "distill.batch_size = 16 (published: 64)" in foot
    assert "names no task version" not in piece.markdown
    rows = list(csv.DictReader(io.StringIO(piece.files["tables/one-published.csv"].decode())))
    recorded = json.loads((write_report(finished.plan()) / "results.json").read_text())["published"]
    assert len(rows) == len(recorded) == len(beside)
    assert {float(row["difference se"]) for row in rows} == {one["difference_se"] for one in recorded}


def test_a_file_that_tells_nothing_but_scores_has_differences_without_an_error(tmp_path):
    text = "source: <b>\ncolumns: [hellaswag/acc]\nllama: {student/baseline: [0.4517]}\n"
    results, beside = replications(study(tmp_path, text))
    (one,) = beside.values()
    assert (one.theirs.stderr, one.se) == (None, None)
    piece = published_table(results, results.ablations[0])
    assert "1 score, errors not known" in piece.fold
    assert "names no task version (hellaswag)" in piece.markdown.replace("\\", "")
    assert "<b>" not in piece.html


def test_a_study_without_published_scores_has_no_such_table(tmp_path):
    finished = bench(tmp_path, ablations=RATES)
    finished.commit(*finished.plan().cells)
    results = collect(finished.plan())
    assert published_table(results, results.ablations[0]) is None


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("n: [1]", "about: 1 numbers for 2 columns"),
        ("made: {distill: {batch_sice: 1}}", "batch_sice"),
        ("maid: {}", "maid"),
    ],
)
def test_what_a_file_says_wrongly_of_how_scores_were_made_is_told(tmp_path, about, message):
    path = tmp_path / "published.yaml"
    path.write_text(f"columns: [a/b, a/c]\nabout: {{{about}}}\n")
    with pytest.raises(AblateError, match=message):
        read_published(str(path))


def test_the_tutorials_file_tells_how_its_scores_were_made():
    published = read_published(str(STUDIES / "published.yaml"))
    assert len(published.about.n) == len(published.about.stderr) == len(published.columns) == 4
    for pair in ("llama", "qwen2"):
        assert all(published.settings(pair).values())
