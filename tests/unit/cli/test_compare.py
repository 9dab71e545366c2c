"""`ablate compare`: any two cells or rows, paired on the same questions, with numbers that others compute too."""

import json
import math
from pathlib import Path
from typing import Any

import example
import numpy as np
import pytest
from scipy import stats
from support.report_study import bench
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.compare_view import compare_record, print_comparison
from ablate.planning.project import project_of
from ablate.results.collect import Metric, Results, RowResult, collect
from ablate.results.two_rows import NamedRow
from ablate.store.store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("example")
    example.unpack(root)
    store = Store(root)
    record = store.study_record("tiny")
    assert record
    store.record_study("again", record | {"study": record["study"] | {"name": "again"}})
    return root


def study(root: Path, seeds: list[int], edit: Any = None) -> Results:
    made_up = bench(root, seeds=seeds)
    for number, cell in enumerate(made_up.plan().cells):
        if not made_up.store.done(cell.evaluate):
            made_up.commit_evaluation(cell, edit=edit if number == 4 else None)
    return collect(made_up.plan())


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory) -> Results:
    return study(tmp_path_factory.mktemp("one"), [0])


def named(results: Results, name: str, seed: int | None = None) -> NamedRow:
    ablation = results.ablations[0]
    row = next(row for row in ablation.rows if row.row.name == name)
    cells = tuple(cell for cell in row.cells if seed is None or cell.cell.seed == seed)
    return NamedRow(name, results, ablation, RowResult(row.row, cells))


def scores(row: NamedRow, metric: Metric) -> tuple[np.ndarray, list[str | None]]:
    """-> seeds x questions, and each question's cluster; read anew."""
    samples = [
        [json.loads(line) for line in cell.samples(metric.task).read_text().splitlines()] for cell in row.row.done
    ]
    return (
        np.array([[sample["scores"][metric.name] for sample in seed] for seed in samples]),
        [sample.get("cluster") for sample in samples[0]],
    )


def by_metric(record: dict[str, Any]) -> dict[Metric, dict[str, Any]]:
    return {Metric(one["task"], one["metric"]): one for one in record["metrics"]}


@pytest.mark.parametrize("metric", [Metric("truthfulqa_mc2", "acc"), Metric("commonsense_qa", "acc")])
def test_of_one_seed_without_clusters_it_is_scipys_paired_t_test(one_seed, metric):
    one, other = named(one_seed, "lr=0.001"), named(one_seed, "lr=1e-05")
    found = by_metric(compare_record(one, other))[metric]
    (mine, _), (theirs, _) = scores(one, metric), scores(other, metric)
    test = stats.ttest_rel(mine[0], theirs[0])
    low, high = test.confidence_interval(0.95)
    assert found["value"] == pytest.approx(mine.mean() - theirs.mean())
    assert (found["p"], found["df"]) == pytest.approx((test.pvalue, test.df))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["visible"] == pytest.approx(2.8 * (mine - theirs).std(ddof=1) / math.sqrt(mine.size))


def test_questions_that_share_a_source_count_together(one_seed):
    one, other, metric = named(one_seed, "lr=0.001"), named(one_seed, "lr=1e-05"), Metric("hellaswag", "acc")
    found = by_metric(compare_record(one, other))[metric]
    (mine, clusters), (theirs, _) = scores(one, metric), scores(other, metric)
    rest = (mine - theirs)[0] - (mine - theirs).mean()
    sums = [rest[[own == cluster for own in clusters]].sum() for cluster in set(clusters)]
    se = math.sqrt(len(sums) / (len(sums) - 1) * sum(value**2 for value in sums)) / rest.size
    assert (found["se"], found["df"]) == pytest.approx((se, len(sums) - 1))
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["value"]) / se, len(sums) - 1))
    assert (found["won"], found["lost"]) == (int((mine > theirs).sum()), int((mine < theirs).sum()))


def test_of_a_row_all_seeds_count_and_of_a_cell_its_own(tmp_path, capsys):
    results, metric = study(tmp_path, [0, 1, 2]), Metric("commonsense_qa", "acc")
    rows = named(results, "lr=0.001"), named(results, "student/finetuned")
    whole = compare_record(*rows)
    (mine, _), (theirs, _) = scores(rows[0], metric), scores(rows[1], metric)
    assert mine.shape == (3, 80)
    assert by_metric(whole)[metric]["value"] == pytest.approx(mine.mean() - theirs.mean())
    assert by_metric(whole)[metric]["has_seed_noise"]
    cell = compare_record(named(results, "lr=0.001", 1), named(results, "student/finetuned", 2))
    assert by_metric(cell)[metric]["value"] == pytest.approx(mine[1].mean() - theirs[2].mean())
    print_comparison(*rows)
    assert "the noise of questions and of training seeds" in capsys.readouterr().out
    print_comparison(named(results, "lr=0.001", 1), named(results, "student/finetuned", 2))
    assert "With one training seed" in capsys.readouterr().out


def other_conditions(results: dict[str, Any]) -> None:
    results["batch_size"] = 3
    results["tasks"]["hellaswag"]["metrics"].pop("acc_norm")


def test_what_was_asked_otherwise_is_not_compared_and_says_why(tmp_path, capsys):
    results = study(tmp_path, [0], other_conditions)
    one, other = named(results, "lr=0.001"), named(results, "student/finetuned")
    record = compare_record(one, other)
    assert {metric["not comparable"] for metric in record["metrics"]} == {"other batch size"}
    assert record["not_shared"] == ["hellaswag/acc_norm"]
    print_comparison(one, other)
    printed = capsys.readouterr().out
    assert printed.count("cannot be compared: other batch size") == 3
    assert "Only one of the two has hellaswag/acc_norm." in printed
    assert "95 % interval" not in printed


def test_flipped_questions_are_those_that_one_has_right_and_the_other_wrong(one_seed, capsys):
    one, other, metric = named(one_seed, "lr=0.001"), named(one_seed, "lr=1e-05"), Metric("hellaswag", "acc")
    (mine, _), (theirs, _) = scores(one, metric), scores(other, metric)
    flips = [flip for flip in compare_record(one, other, 3)["flips"] if flip["task"] == "hellaswag"]
    assert len(flips) == 3
    for flip in flips:
        pair = (mine[0, flip["doc_id"]], theirs[0, flip["doc_id"]])
        assert pair == ((1, 0) if flip["won"] else (0, 1))
    print_comparison(one, other, 3)
    printed = capsys.readouterr().out
    won, lost = int((mine > theirs).sum()), int((mine < theirs).sum())
    assert f"By HellaSwag acc the first wins {won} questions and loses {lost}." in printed
    assert f"question {flips[0]['doc_id']}" in printed


def verb(root: Path, *names: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["compare", *names, "--root", str(root)])
    return ran.exit_code, ran.output if ran.exception is None else f"{ran.output}{ran.exception}"


def test_cells_of_two_studies_are_compared_and_what_differs_is_told(root):
    code, printed = verb(root, "tiny:kd_ratio/kd_ratio=1.0", "again:kd_ratio/kd_ratio=0.25@0")
    assert code == 0
    assert printed.endswith("They differ in this (first -> second):\n  adapter_0: kd_ratio: 1.0 -> 0.25\n")
    code, printed = verb(root, "tiny:close/teacher/baseline", "again:close/teacher/baseline")
    assert (code, "Both are one model" in printed) == (0, True)


def test_a_name_that_fits_nothing_is_refused_with_a_near_one(root):
    code, printed = verb(root, "tiny:kd_ratio/kd_ratio=1.0", "tiny:kd_rati/kd_ratio=0.25")
    assert code != 0
    assert "names no row or cell of study 'tiny'. Did you mean 'kd_ratio/kd_ratio=0.25'?" in printed


def test_what_is_not_done_says_what_it_waits_for(root):
    store = Store(root)
    cells = project_of(Path("tiny"), root).plan(is_online=False).cells
    folder = next(cell.evaluate.folder for cell in cells if cell.name == "learning_rate/lr=0.02@0")
    (store.runs / "stages" / folder).rename(root / "away")
    code, printed = verb(root, "tiny:learning_rate/lr=0.02", "tiny:kd_ratio/kd_ratio=0.25")
    (root / "away").rename(store.runs / "stages" / folder)
    assert code != 0
    assert "'tiny:learning_rate/lr=0.02' is waiting (not started): it has no scores yet" in printed
