"""`ablate results`: the rows that are asked for, in the order that is asked for, with the report's own numbers."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import example
import pytest
from rich.console import Console
from support.golden import half_done
from support.report_study import bench, without_numbers
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.cli.chosen_records import csv_records, json_record
from ablate.cli.results_view import foot, names_of, print_rows, rows_table
from ablate.cli.row_choice import Choice, Wanted, choose
from ablate.core.errors import AblateError
from ablate.core.values import spelled
from ablate.planning.project import project_of
from ablate.report.results_json import results_record
from ablate.report.spreadsheet import results_csv, to_csv
from ablate.results.collect import Results, collect
from ablate.results.long_table import Record
from ablate.results.row_records import read_record


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("example")
    example.unpack(root)
    return root


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory) -> Results:
    study = bench(tmp_path_factory.mktemp("seeds"), seeds=[0, 1, 2])
    for cell in study.plan().cells:
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    return collect(study.plan())


def verb(root: Path, *options: str) -> str:
    ran = CliRunner().invoke(app, ["results", "tiny", "--root", str(root), *options])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def lines(choice: Choice) -> list[list[str]]:
    return list(csv.reader(io.StringIO(to_csv([Record._fields, *csv_records(choice)]))))


def test_without_options_the_csv_is_results_csv(root, three_seeds):
    assert to_csv([Record._fields, *csv_records(choose(three_seeds, Wanted()))]) == results_csv(three_seeds)
    printed = verb(root, "--csv")
    assert printed.startswith(",".join(Record._fields))
    assert len(printed.splitlines()) == 1 + 35 * 10


def test_the_json_is_the_part_of_results_json_that_is_chosen(three_seeds):
    whole = spelled(results_record(three_seeds))
    chosen = spelled(json_record(choose(three_seeds, Wanted(rows=("lr=*",), metrics=("hellaswag/acc",)))))
    assert chosen["differences"] == [
        one for one in whole["differences"] if one["row"].startswith("lr=") and one["metric"] == "hellaswag/acc"
    ]
    assert [cell["name"] for cell in chosen["cells"]] == [
        cell["name"] for cell in whole["cells"] if cell["row"].startswith("lr=")
    ]
    (scored, *_), (all_scored, *_) = chosen["cells"], [cell for cell in whole["cells"] if cell["row"] == "lr=0.001"]
    assert scored["tasks"]["hellaswag"]["metrics"] == {"acc": all_scored["tasks"]["hellaswag"]["metrics"]["acc"]}
    assert list(scored["tasks"]) == ["hellaswag"]


def test_a_rows_score_is_the_mean_over_seeds_and_its_interval_the_reports(three_seeds):
    scores: dict[tuple[str, str], list[float]] = {}
    for line in csv.DictReader(io.StringIO(results_csv(three_seeds))):
        if f"{line['task']}/{line['metric']}" == "truthfulqa_mc2/acc":
            scores.setdefault((line["ablation"], line["row"]), []).append(float(line["value"]))
    records = choose(three_seeds, Wanted()).printed()
    assert {(one.ablation, one.row): one.score for one in records} == pytest.approx(
        {name: sum(values) / len(values) for name, values in scores.items()}
    )
    recorded = {(one["ablation"], one["row"]): one for one in results_record(three_seeds)["differences"]
                if one["metric"] == "truthfulqa_mc2/acc"}  # fmt: skip
    for one in records:
        if not one.is_control:
            mine, control = scores[one.ablation, one.row], scores[one.ablation, "student/finetuned"]
            assert one.difference == pytest.approx(sum(mine) / len(mine) - sum(control) / len(control))
        if one.verdict:
            assert (one.low, one.high) == (
                recorded[one.ablation, one.row]["low"],
                recorded[one.ablation, one.row]["high"],
            )


def test_the_best_are_the_students_with_the_highest_scores_each_model_once(root):
    rows: dict[str, tuple[float, str]] = {}
    for line in csv.DictReader(io.StringIO(verb(root, "--csv", "--metric", "tiny_letters/acc"))):
        if not line["row"].startswith("teacher/"):
            rows.setdefault(line["key"], (float(line["value"]), f"{line['ablation']}/{line['row']}"))
    best = sorted(rows.values(), key=lambda row: -row[0])[:5]
    printed = verb(root, "--best", "5").splitlines()[1:6]
    assert [line.split()[0] for line in printed] == [name for _, name in best]


def low_is_good(results: dict[str, Any]) -> None:
    for task in results["tasks"].values():
        task["higher_is_better"] = {"acc": False}


@pytest.mark.parametrize(("edit", "sign"), [(None, -1), (low_is_good, 1)])
@pytest.mark.parametrize("sort", ["score", "difference"])
def test_rows_are_sorted_with_the_better_ones_first(tmp_path, edit, sign, sort):
    study = bench(tmp_path)
    for cell in study.plan().cells[:-1]:
        study.commit_evaluation(cell, edit=edit) if not study.store.done(cell.evaluate) else None
    records = choose(collect(study.plan()), Wanted(sort=sort)).printed()
    values = [getattr(one, sort) for one in records]
    known = [value for value in values if value is not None]
    assert known == sorted(known, key=lambda value: sign * value)
    assert values[len(known) :] == [None] * (len(values) - len(known))
    assert len(known) < len(values)  # what is not done, or has no control, stands last


def test_rows_can_be_asked_for_by_their_state_and_say_it(tmp_path, capsys):
    results = collect(half_done(tmp_path).plan())
    print_rows(choose(results, Wanted(states=("failed", "diverged"))))
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if "lr=" in line] == ["lr=0.001", "lr=0.0003"]
    assert [line.split()[-1] for line in printed.splitlines() if "lr=" in line] == ["diverged", "failed"]
    assert lines(choose(results, Wanted(states=("failed",))))[1][-1] == "failed"


def test_nan_is_spelled_as_in_results_json_and_read_again(tmp_path):
    study = bench(tmp_path)
    for cell in study.plan().cells[:5]:
        study.commit_evaluation(cell, edit=without_numbers)
    record = json.loads(json.dumps(spelled(json_record(choose(collect(study.plan()), Wanted(rows=("lr=0.001",)))))))
    assert record["rows"][0]["score"] == "NaN"
    again = read_record(record["rows"][0])
    assert again.score is not None
    assert math.isnan(again.score)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(ablations=("learning_rat",)), r"--ablation learning_rat is no .* Did you mean 'learning_rate'\?"),
        (Wanted(rows=("lr=0.01",)), r"--row lr=0.01 is no row .* Possible: kd, lr=0.0003"),
        (Wanted(metrics=("hellaswag/ac",)), r"Did you mean 'hellaswag/acc'\?"),
        (Wanted(tasks=("helaswag",)), r"--task helaswag is no task .* Did you mean 'hellaswag'\?"),
        (Wanted(states=("fail",)), r"Did you mean 'failed'\?"),
        (Wanted(sort="scores"), r"--sort scores: .* Did you mean 'score'\?"),
    ],
)
def test_a_name_that_chooses_nothing_is_refused_with_the_possible_ones(three_seeds, wanted, message):
    with pytest.raises(AblateError, match=message):
        choose(three_seeds, wanted)


def test_a_name_of_the_study_moves_no_cursor(tmp_path, capsys):
    study = bench(tmp_path, ablations={"one": {"title": "a\x1b[2Jb", "grid": {"distill.lr": [1e-3]}}})
    study.commit_evaluation(study.plan().cells[0])
    print_rows(choose(collect(study.plan()), Wanted()))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"a\x1b[2Jb" in printed


def test_a_narrow_terminal_keeps_intervals_whole_and_says_what_it_leaves_out(root):
    results = collect(project_of(Path("tiny"), root).plan(is_online=False))
    records = choose(results, Wanted(ablations=("kd_ratio",))).printed()
    printed = {}
    for width in (70, 200):
        shown = rows_table(records, names_of(results), width)
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(shown.table)
        printed[width] = console.export_text(), shown.left_out
    intervals = re.compile(r"[+\N{MINUS SIGN}]\d\.\d+ to [+\N{MINUS SIGN}]\d\.\d+")
    assert intervals.findall(printed[70][0]) == intervals.findall(printed[200][0]) != []
    assert printed[70][1] == {"Cost", "Gap recovered"}
    assert printed[200][1] == set()
    assert list(foot(records, printed[70][1]))[-1] == "A wider terminal has room for cost and gap recovered, too."


def test_the_best_of_several_pairs_are_students_too(tmp_path):
    study = bench(tmp_path, ablations={"pairs": {"grid": {"distill.pair": ["llama", "qwen2"]}}})
    for cell in study.plan().cells:
        study.commit_evaluation(cell)
    records = choose(collect(study.plan()), Wanted(best=20)).printed()
    assert (
        sorted(one.model for one in records) == ["distill"] * 2 + ["student/baseline"] * 2 + ["student/finetuned"] * 2
    )
    assert {one.pair for one in records} == {"llama", "qwen2"}
