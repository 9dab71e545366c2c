"""What a study has found: no cell is ever missing, no number is made up, and like is only compared with like."""

import json
import math
import random
import re

import pytest
from support.golden import distilled, golden, half_done
from support.report_study import bench

from ablate.cli.app import app
from ablate.core.errors import AblateError
from ablate.core.failures import FAILURES
from ablate.report.spreadsheet import results_csv, to_csv
from ablate.results.collect import Metric, collect
from ablate.results.long_table import frame
from ablate.results.paired import align, contrast
from ablate.results.question_scores import (
    NotComparable,
    QuestionScores,
    check_alike,
    questions_of,
    read_question_scores,
    sd,
)
from ablate.study.published import read_published

ACC = Metric("hellaswag", "acc")


def test_every_cell_has_its_lines_done_or_not(tmp_path):
    golden("half_done.csv", results_csv(collect(half_done(tmp_path).plan())))


def test_a_study_that_was_never_run_has_a_line_for_every_cell_and_task(tmp_path):
    plan = bench(tmp_path).plan()
    lines = results_csv(collect(plan)).splitlines()[1:]
    assert len(lines) == len(plan.cells) * 3
    assert all(line.endswith(",waiting") for line in lines)


def test_results_csv_is_the_same_whenever_and_wherever_it_was_made(tmp_path):
    first, second = bench(tmp_path / "a"), bench(tmp_path / "b")
    first.commit(*first.plan().cells)
    again = second.plan()
    second.fail(again.cells[0].evaluate, "preempted", "went away")
    second.commit(*reversed(again.cells))
    assert results_csv(collect(first.plan())) == results_csv(collect(second.plan()))


def test_a_nan_score_stays_nan(tmp_path):
    study = bench(tmp_path)
    cell = distilled(study)[0]

    def spoil(results):
        results["tasks"]["hellaswag"]["metrics"]["acc"]["value"] = "NaN"

    study.commit_evaluation(cell, edit=spoil)
    line = next(line for line in results_csv(collect(study.plan())).splitlines() if "lr=0.001,0,hellaswag,acc," in line)
    assert ",NaN," in line


def test_text_that_a_spreadsheet_would_run_is_quoted():
    assert to_csv([["=cmd|' /C calc'!A0", "+1", "@x", "plain", -0.5]]) == "'=cmd|' /C calc'!A0,'+1,'@x,plain,-0.5\n"


def test_numbers_keep_all_their_digits():
    assert to_csv([[0.1 + 0.2, math.nan, None, 3]]) == "0.30000000000000004,NaN,,3\n"


def test_a_row_whose_teacher_diverged_is_blocked_and_says_by_what(tmp_path):
    study = bench(tmp_path)
    cells = {cell.name: cell for cell in study.plan().cells}
    teacher = cells["learning_rate/teacher/finetuned@0"]
    study.diverge(teacher)
    results = {cell.cell.name: cell for cell in collect(study.plan()).cells}
    result = results["learning_rate/teacher/finetuned@0"]
    assert (result.state, result.why) == ("diverged", "diverged at step 31: loss is nan")
    result = results["learning_rate/lr=0.001@0"]
    assert result.state == "blocked"
    assert result.why == f"needs {teacher.trained.folder}, which diverged at step 31: loss is nan"


def test_a_diverged_training_is_its_rows_news(tmp_path):
    cell = next(c for c in collect(half_done(tmp_path).plan()).cells if c.cell.row.name == "lr=0.001")
    assert (cell.state, cell.why) == ("diverged", "diverged at step 31: loss is nan")


def test_a_result_that_was_edited_by_hand_is_not_shown(tmp_path):
    study = bench(tmp_path)
    cell = distilled(study)[0]
    study.commit(cell)
    path = study.store.folder(cell.evaluate) / "out" / "results.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))
    result = next(c for c in collect(study.plan()).cells if c.cell.name == cell.name)
    assert (result.state, dict(result.scores)) == ("damaged", {})
    assert result.why.startswith("out/results.json has other content than was written; `ablate run` sets it aside")


def test_advice_names_only_verbs_that_there_are():
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    advised = {verb for failure in FAILURES.values() for verb in re.findall(r"\bablate (\w+)", failure.advice)}
    assert advised
    assert advised <= verbs


def test_columns_follow_the_studys_tasks_and_acc_comes_before_acc_norm(tmp_path):
    study = bench(tmp_path, evaluate={"tasks": ["hellaswag", "commonsense_qa", "truthfulqa_mc2"]})
    study.commit(*study.plan().cells)
    names = [str(metric) for metric in collect(study.plan()).ablations[0].columns]
    assert names == ["hellaswag/acc", "hellaswag/acc_norm", "commonsense_qa/acc", "truthfulqa_mc2/acc"]


def test_a_group_of_tasks_is_one_column_and_its_tasks_stay_in_the_results(tmp_path):
    study = bench(tmp_path, evaluate={"tasks": ["few"]})

    def group(results):
        metrics = {"acc": {"value": 0.5, "stderr": None}}
        results["tasks"]["few"] = {"version": 1, "n": 240, "metrics": metrics, "members": sorted(results["tasks"])}

    study.commit_evaluation(study.plan().cells[0], edit=group)
    ablation = collect(study.plan()).ablations[0]
    assert ablation.columns == (Metric("few", "acc"),)
    assert len(ablation.metrics) == 5


def test_every_control_of_an_ablation_counts_once_one_a_pair(tmp_path):
    study = bench(
        tmp_path, ablations={"pairs": {"grid": {"distill.pair": ["llama", "qwen2"], "distill.lr": [1e-3, 3e-4]}}}
    )
    controls = collect(study.plan()).ablations[0].controls
    assert [row.row.name for row in controls] == ["llama/student/finetuned", "qwen2/student/finetuned"]


def test_the_frame_has_numbers_as_numbers(tmp_path):
    study = bench(tmp_path)
    study.commit(*study.plan().cells)
    table = frame(collect(study.plan()))
    assert table.value.dtype == "float64"
    assert table.query("metric == 'acc' and task == 'hellaswag'").n.eq(100).all()


def answers(scores: list[float], clusters: list[str | None] | None = None, text: str = "q") -> QuestionScores:
    num = len(scores)
    hashes = tuple(f"{text}{i}" for i in range(num))
    return QuestionScores(questions_of(tuple(range(num)), hashes, tuple(clusters or [None] * num)), scores)


def paired(arm, control):
    """-> the contrast of two models of one seed."""
    return contrast(align([arm], [control]))


def test_a_paired_difference_is_that_of_a_paired_t_test():
    from scipy.stats import ttest_rel

    arm, control = [1, 0, 1, 1, 0.5, 1, 0], [0, 0, 1, 0, 0.25, 1, 1]
    difference, reference = paired(answers(arm), answers(control)), ttest_rel(arm, control)
    assert difference.value / difference.se == pytest.approx(reference.statistic)
    assert (difference.n, difference.clusters) == (7, None)


def test_a_clustered_error_is_that_of_cameron_gelbach_and_miller():
    import numpy as np

    arm, control = np.array([1.0, 1, 0, 1, 0, 1]), np.array([0.0, 0, 0, 1, 1, 1])
    clusters = ["a", "a", "b", "b", "c", "c"]
    d = arm - control
    sums = np.array([(d - d.mean())[start : start + 2].sum() for start in (0, 2, 4)])
    difference = paired(answers(list(arm), clusters), answers(list(control), clusters))
    assert difference.se == pytest.approx(math.sqrt(3 / 2 * (sums**2).sum()) / 6)
    assert difference.clusters == 3


def test_clusters_of_one_question_change_nothing_but_the_small_correction():
    scores, control = [1.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]
    alone = paired(answers(scores, list("abcd")), answers(control, list("abcd")))
    assert alone.se == pytest.approx(paired(answers(scores), answers(control)).se)


@pytest.mark.parametrize("seed", range(20))
def test_a_question_that_shares_nothing_is_a_cluster_of_its_own(seed):
    draw = random.Random(seed)
    clusters = [draw.choice(["a", "b", "", "0", None, None]) for _ in range(30)]
    scores = [[draw.random() for _ in clusters] for _ in range(2)]
    difference = paired(*(answers(model_scores, clusters) for model_scores in scores))
    # by brute force, as a sum over pairs of questions: G/(G-1) sum_ij [i and j are of one cluster] e_i e_j / n^2
    d = [arm - control for arm, control in zip(*scores, strict=True)]
    e = [one - sum(d) / len(d) for one in d]
    is_one = [[i == j or (a is not None and a == b) for j, b in enumerate(clusters)] for i, a in enumerate(clusters)]
    groups = len({name for name in clusters if name is not None}) + clusters.count(None)
    total = sum(e[i] * e[j] for i in range(30) for j in range(30) if is_one[i][j])
    assert difference.se == pytest.approx(math.sqrt(groups / (groups - 1) * total) / 30)
    assert difference.clusters == groups


def test_a_cluster_may_be_called_0_or_nothing(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [{"doc_id": i, "doc_hash": "h", "scores": {"acc": 1.0}, "cluster": c} for i, c in enumerate([0, "", None])]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert read_question_scores(path, "acc").questions.clusters == ("0", "", None)


def test_one_question_has_no_standard_error():
    assert math.isnan(paired(answers([1.0]), answers([0.0])).se)
    assert math.isnan(sd([0.5]))


@pytest.mark.parametrize(
    ("control", "why"),
    [(answers([1, 0]), "other questions"), (answers([1, 0, 1], text="other"), "another text")],
)
def test_other_questions_are_not_compared(control, why):
    with pytest.raises(NotComparable, match=why):
        paired(answers([1, 0, 1]), control)


def test_the_same_questions_in_another_order_are_paired_by_their_numbers():
    shuffled = QuestionScores(questions_of((2, 0, 1), ("q2", "q0", "q1"), (None,) * 3), [0.25, 1, 0])
    assert align([shuffled], [answers([0.5, 0, 0])]).differences.tolist() == [0.5, 0, 0.25]


def test_seeds_are_averaged_question_by_question():
    both = align([answers([1, 0]), answers([0, 0])], [answers([0, 0])])
    assert both.differences.tolist() == [0.5, 0.0]


def evaluation(**changes) -> dict:
    return {"limit": None, "dtype": "float32", "batch_size": 16, "tasks": {"t": {"version": 1}}} | changes


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"batch_size": 8}, "other batch size"),
        ({"dtype": "bfloat16"}, "other dtype"),
        ({"limit": 100}, "other limit"),
        ({"num_fewshot": 5}, "other num fewshot"),
        ({"tasks": {"t": {"version": 1, "asked": {"limit": 100}}}}, "other limit"),
        ({"tasks": {"t": {"version": 1, "asked": {"num_fewshot": 5}}}}, "other num fewshot"),
        ({"tasks": {"t": {"version": 2}}}, "other task version"),
        ({"tasks": {"t": {"version": 1, "prompts": "others"}}}, "other prompts"),
    ],
)
def test_evaluations_that_were_not_made_alike_are_not_compared(change, why):
    check_alike(evaluation(), evaluation(), "t")
    with pytest.raises(NotComparable, match=why):
        check_alike(evaluation(), evaluation(**change), "t")


def test_what_is_said_of_one_task_alone_counts_for_it_as_if_it_were_said_of_all():
    alone = evaluation(tasks={"t": {"version": 1, "asked": {"limit": 100, "num_fewshot": 2}}})
    check_alike(alone, evaluation(limit=100, num_fewshot=2), "t")
    unlimited = evaluation(limit=8, tasks={"t": {"version": 1, "asked": {"limit": "none"}}})
    check_alike(unlimited, evaluation(), "t")


def test_a_perplexity_is_not_compared_by_its_logarithms(tmp_path):
    """What lambada keeps of a question is a log-likelihood: a better model's is higher, its perplexity lower."""

    def exponential(results):
        score = results["tasks"]["hellaswag"]["metrics"]["acc"]
        score["value"] = math.exp(-score["value"])

    study = bench(tmp_path)
    for cell in study.plan().cells:
        study.commit_evaluation(cell, edit=exponential)
    ablation = collect(study.plan()).ablations[0]
    control, row = ablation.control_of(ablation.rows[-1].row), ablation.rows[-1]
    with pytest.raises(NotComparable, match="no mean over questions"):
        row.difference(control, ACC)
    assert row.difference(control, Metric("hellaswag", "acc_norm")).n


PUBLISHED = """
source: a paper
columns: [hellaswag/acc, hellaswag/acc_norm]
llama:
  student/baseline: [0.4517, 0.6064]
  kd:
    - {teacher: finetuned, student: baseline, lr: 1.0e-3, kd_ratio: 0.5, scores: [0.4535, 0.6071]}
"""


def published_of(tmp_path, entry="", also_set=None, **grid):
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED.replace("kd_ratio: 0.5,", f"kd_ratio: 0.5, {entry}"))
    study = bench(tmp_path, ablations={"one": {"grid": grid, "set": also_set or {}}})
    table = read_published(str(path))
    return {
        cell.row.name: {name: score.value for name, score in table.scores(cell.row, also_set or ()).items()}
        for cell in study.plan().cells
    }


def test_published_scores_are_found_by_recipe(tmp_path):
    published = published_of(tmp_path, **{"distill.lr": [1e-3, 3e-4]})
    assert published["student/baseline"] == {"hellaswag/acc": 0.4517, "hellaswag/acc_norm": 0.6064}
    assert published["lr=0.001"] == {"hellaswag/acc": 0.4535, "hellaswag/acc_norm": 0.6071}
    assert published["lr=0.0003"] == published["teacher/baseline"] == {}


def test_a_row_about_something_that_the_paper_does_not_tell_has_no_published_score(tmp_path):
    published = published_of(tmp_path, **{"distill.lr": [1e-3], "distill.loss": ["forward_kl", "reverse_kl"]})
    assert published["lr=0.001,loss=reverse_kl"] == published["lr=0.001,loss=forward_kl"] == {}


@pytest.mark.parametrize("loss", ["loss: forward_kl,", "loss: {name: forward_kl},", "scale_by_t2: true,"])
def test_an_entry_may_say_its_loss_as_a_study_does(tmp_path, loss):
    assert published_of(tmp_path, loss, **{"distill.lr": [1e-3]})["lr=0.001"]
    assert not published_of(tmp_path, loss, **{"distill.lr": [1e-3], "distill.loss": ["jsd"]})["lr=0.001,loss=jsd"]


def test_an_entry_of_another_loss_is_not_the_default_ones(tmp_path):
    jsd = "loss: {name: jsd, beta: 0.25},"
    assert published_of(tmp_path, jsd, **{"distill.lr": [1e-3]})["lr=0.001"] == {}
    published = published_of(tmp_path, jsd, {"distill.loss": {"beta": 0.25, "name": "jsd"}}, **{"distill.lr": [1e-3]})
    assert published["lr=0.001"]


@pytest.mark.parametrize(
    ("entry", "also_set", "is_found"),
    [
        ("", {"distill.batch_size": 8}, False),
        ("batch_size: 8,", {"distill.batch_size": 8}, True),
        ("batch_size: 16,", {"distill.batch_size": 8}, False),
        ("lora: {rank: 8},", {"distill.lora.rank": 8}, True),
        ("lora: {rank: 4},", {"distill.lora.rank": 8}, False),
        ("", {"pairs.llama.distill.batch_size": 8}, False),
        ("", {"finetune.lr": 1e-4}, False),
        ("", {"distill.pair": "llama", "distill.micro_batch_tokens": 512}, True),
        ("", {"evaluate.limit": 20, "dtype": "float32"}, True),
    ],
)
def test_what_an_ablation_sets_of_a_training_the_entry_must_say(tmp_path, entry, also_set, is_found):
    published = published_of(tmp_path, entry, also_set, **{"distill.lr": [1e-3]})
    assert bool(published["lr=0.001"]) is is_found


def test_a_row_about_fine_tuning_is_not_taken_for_one_about_distillation(tmp_path):
    published = published_of(tmp_path, **{"distill.lr": [1e-3], "finetune.lr": [1e-3]})
    assert published["distill.lr=0.001,finetune.lr=0.001"] == {}


def test_an_entry_that_says_what_no_distillation_has_is_told(tmp_path):
    with pytest.raises(AblateError, match=r"llama: kd: unknown key 'kd_ration' in distill. Did you mean 'kd_ratio'"):
        published_of(tmp_path, "kd_ration: 0.5,", **{"distill.lr": [1e-3]})
    with pytest.raises(AblateError, match="unknown loss 'forward'"):
        published_of(tmp_path, "loss: forward,", **{"distill.lr": [1e-3]})


@pytest.mark.parametrize("text", ["[]", "columns: [a/b]\nllama: {student/baseline: [1, 2]}", "llama: {}", "columns: 3"])
def test_a_broken_file_of_published_scores_is_told(tmp_path, text):
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(AblateError, match=r"published\.yaml: not a file of published scores"):
        read_published(str(path))


def test_results_json_has_the_lineage_of_every_cell(tmp_path):
    from ablate.report.results_json import results_record

    plan = half_done(tmp_path).plan()
    record = json.loads(json.dumps(results_record(collect(plan))))
    cell = next(cell for cell in record["cells"] if cell["name"] == "learning_rate/lr=1e-05@0")
    assert [folder.split("-")[0] for folder in cell["stages"]] == [
        "fetch",
        "fetch",
        "fetch",
        "finetune",
        "distill",
        "evaluate",
    ][1:]
    assert all(folder in record["stages"] for folder in cell["stages"])
    assert record["stages"][cell["stages"][-1]]["provenance"]["device"] == "a CPU"
