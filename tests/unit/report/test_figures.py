"""Grids of two settings, losses on held-out rows, curves as numbers: what each shows is what was measured."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from support import report_study
from support.report_study import bench

from ablate.report import verdict_looks
from ablate.report.exhibits.base import EXHIBITS
from ablate.report.exhibits.curves import LOSSES, read_curve
from ablate.report.exhibits.heat_map import grid_of
from ablate.report.exhibits.loss_curves import curves_of
from ablate.report.results_json import results_record
from ablate.results.aligned_rows import distilled
from ablate.results.collect import collect
from ablate.results.verdicts import findings_of

GRID = {"distill.lr": [1e-3, 1e-5, 3e-4], "distill.loss": ["forward_kl", "jsd"]}
MINUS = "\N{MINUS SIGN}"


def shown(study, name, number=0):
    results = collect(study.plan())
    return EXHIBITS[name](results, results.ablations[number])


def rows(piece, path):
    return list(csv.DictReader(io.StringIO(piece.files[path].decode())))


# two settings


@pytest.fixture
def crossed(tmp_path):
    """Three learning rates by two losses; one of the six is left out, one failed."""
    exclude = [{"distill.lr": 1e-5, "distill.loss": "jsd"}]
    study = bench(tmp_path, ablations={"two": {"grid": GRID, "exclude": exclude}})
    *others, last = study.plan().cells
    study.commit(*others)
    study.fail(last.evaluate, "error", "a reason")
    return study


def test_rows_stand_where_their_two_settings_cross_numbers_in_order(crossed):
    results = collect(crossed.plan())
    ((_, rows),) = distilled(results.ablations[0])
    grid = grid_of(rows)
    assert grid.paths == ("distill.lr", "distill.loss")
    assert grid.values[0] == (1e-5, 3e-4, 1e-3)
    assert len(grid.rows) == 5
    for (x, y), row in grid.rows.items():
        assert row.row.values == {"distill.lr": grid.values[0][x], "distill.loss": grid.values[1][y]}


def test_a_grid_tells_every_difference_and_its_verdict_and_counts_the_gaps(crossed):
    results = collect(crossed.plan())
    piece = shown(crossed, "differences-heat")
    findings = findings_of(results, results.ablations[0]).all
    assert len(findings) == 4 * 4
    for one in findings:
        value = f"{100 * one.contrast.value:+.1f}".replace("-", MINUS)
        assert re.search(
            rf"{re.escape(one.row.row.label)} {re.escape(value)} \(.*?\), {verdict_looks.words(one)}", piece.markdown
        )
    assert piece.markdown.count("2 places without a difference") == 4
    assert piece.html.count("<title>KD, ") == 4 * 4
    assert set(piece.files) == {"figures/two-heat.png", "figures/two-heat.svg"}


@pytest.mark.parametrize("grid", [{"distill.lr": [1e-3, 3e-4]}, GRID | {"distill.kd_ratio": [0.25, 0.5]}])
def test_one_setting_or_three_are_no_grid(tmp_path, grid):
    study = bench(tmp_path, ablations={"one": {"grid": grid}})
    study.commit(*study.plan().cells)
    assert shown(study, "differences-heat") is None


def test_a_random_search_is_no_grid(tmp_path):
    axes = {"distill.lr": [1e-3, 3e-4, 1e-4, 3e-5], "distill.kd_ratio": [0.2, 0.9, 0.4, 0.7]}
    study = bench(tmp_path, ablations={"one": {"zip": axes}})
    study.commit(*study.plan().cells)
    assert shown(study, "differences-heat") is None


def test_values_that_begin_alike_do_not_look_alike(tmp_path):
    losses = [{"name": "skew_forward_kl", "beta": beta} for beta in (0.1, 0.3)]
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.loss": losses, "distill.lr": [1e-3, 1e-4]}}})
    ((_, rows),) = distilled(collect(study.plan()).ablations[0])
    grid = grid_of(rows)
    assert grid
    assert all("beta" in label for label in grid.labels(grid.paths.index("distill.loss")))


# held-out losses


def losses_of(cell):
    is_distilled = cell.row.model == "distill"
    return {"class_loss": 1.5 + 0.1 * (cell.seed or 0), "tokens": 640} | (
        {"forward_kl": 0.25, "reverse_kl": 0.5} if is_distilled else {}
    )


@pytest.fixture
def held_out(tmp_path):
    study = bench(tmp_path, seeds=[0, 1])
    for cell in study.plan().cells:
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell, held_out=losses_of(cell))
        study.commit_evaluation(cell)
    return study


def test_held_out_losses_are_those_of_the_trainings_one_a_seed(held_out):
    piece = shown(held_out, "losses-held-out")
    lines = rows(piece, "tables/learning_rate-held-out.csv")
    assert [(line["row"], line["seed"], line["class_loss"], line["forward_kl"]) for line in lines] == [
        ("student/finetuned", "0", "1.5", ""),
        ("student/finetuned", "1", "1.6", ""),
        *((f"lr={lr}", *seed, "0.25") for lr in ("0.001", "0.0003", "1e-05") for seed in (("0", "1.5"), ("1", "1.6"))),
    ]
    assert "KD, lr=1e-05 1.5500 (1.5000 to 1.6000)" in piece.markdown
    assert "Fine-tuned teacher" not in piece.markdown


def test_other_pairs_and_other_data_are_said_to_be_no_common_scale(tmp_path, held_out):
    study = bench(tmp_path / "pairs", ablations={"pairs": {"grid": {"distill.pair": ["llama", "qwen2"]}}})
    for cell in study.plan().cells:
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell, held_out=losses_of(cell))
    assert "no common scale" in shown(study, "losses-held-out").markdown
    assert "no common scale" not in shown(held_out, "losses-held-out").markdown


def test_models_of_other_tokenizers_are_compared_in_bits_per_byte_and_no_others(tmp_path):
    for tokens in (640, 700):
        study = bench(tmp_path / str(tokens), ablations={"pairs": {"grid": {"distill.pair": ["llama", "qwen2"]}}})
        for cell in study.plan().cells:
            if cell.trained and not study.store.done(cell.trained):
                own = {"tokens": tokens if cell.row.setting.pair == "qwen2" else 640, "bits_per_byte": 0.875}
                study.commit_training(cell, held_out=losses_of(cell) | own)
        piece = shown(study, "losses-held-out")
        assert ("bits_per_byte has one scale" in piece.markdown) == (tokens == 700)
        assert ("0.8750" in piece.markdown) == (tokens == 700)
        lines = rows(piece, "tables/pairs-held-out.csv")
        assert [line.get("bits_per_byte") for line in lines] == ["0.875" if tokens == 700 else None] * len(lines)


def test_without_held_out_rows_there_is_no_such_figure(tmp_path):
    study = bench(tmp_path)
    study.commit(*study.plan().cells)
    assert shown(study, "losses-held-out") is None


def test_held_out_losses_are_in_results_json(held_out):
    cells = results_record(collect(held_out.plan()))["cells"]
    losses = {cell["name"]: cell["held_out"] for cell in cells}
    assert losses["learning_rate/lr=0.001@1"]["class_loss"] == 1.6
    assert losses["learning_rate/student/baseline"] == {}


# a teacher cut to its likeliest tokens


def test_what_a_cut_teacher_costs_stands_beside_the_whole_one(tmp_path):
    study = bench(tmp_path, seeds=[0, 1], ablations={"cut": {"grid": {"distill.teacher_top_k": [None, 8, 64]}}})
    cells = study.plan().cells
    for cell in cells:
        if cell.trained and not study.store.done(cell.trained):
            study.commit_training(cell, steps=10)
        study.commit_evaluation(cell)
    piece = shown(study, "table-teacher-cuts")
    lines = rows(piece, "tables/cut-teacher-cuts.csv")
    results = collect(study.plan())
    by_name = {row.row.name: row for row in results.ablations[0].rows}
    assert [(line["row"], line["exact_row"], line["k"]) for line in lines] == [
        (f"teacher_top_k={k}", "teacher_top_k=none", str(k)) for k in (8, 64)
    ]
    for k, line in zip((8, 64), lines, strict=True):
        assert float(line["teacher_mass_left_out"]) == pytest.approx(0.15 / k)  # 0.1 and 0.2, step by step
        assert float(line["teacher_entropy_lost"]) == pytest.approx(0.75 / k)
        assert float(line["teacher_kl_error"]) == pytest.approx(0.45 / k)
        metric = results.ablations[0].columns[0]
        assert line["metric"] == str(metric)
        scores = [by_name[name].score(metric).value for name in (line["row"], line["exact_row"])]
        assert float(line["difference"]) == pytest.approx(scores[0] - scores[1])
    assert "KD, teacher_top_k=8 |  | 0.9812 | 0.0938 | 0.0563 |" in piece.markdown  # the teacher is not here: no bytes
    assert shown(bench(tmp_path / "whole"), "table-teacher-cuts") is None


# curves as numbers


def test_a_step_without_a_loss_bearing_token_has_no_place_on_a_curve(tmp_path):
    study = bench(tmp_path, ablations={"one": {"grid": {"distill.lr": [1e-3, 3e-4]}}})
    cell = study.plan().cells[-1]
    lines = [json.loads(line) for line in report_study.curve(cell, 20).splitlines()]
    lines[7] |= {"loss": None, "class_loss": None, "kd_loss": None, "tokens": 0}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (result,) = [one for one in collect(study.plan()).cells if one.cell.name == cell.name]
    curve = read_curve("it", {}, replace(result, curve=path))
    assert list(curve.columns["step"]) == [*range(1, 8), *range(9, 21)]
    assert len(curve.smooth["loss"]) == 19


def test_the_table_of_losses_is_the_curves_at_their_quarters(held_out):
    results = collect(held_out.plan())
    curves = curves_of(results.ablations[0], results.study.pairs)
    lines = rows(shown(held_out, "losses"), "tables/learning_rate-losses.csv")
    assert len(lines) == 3 * 2 * len(LOSSES) + 2  # and the class loss of the fine-tuned student's two seeds
    for line in lines:
        (curve,) = (
            curve
            for curve in curves
            if (curve.label, str(curve.cell.cell.seed)) == (line["label"], line["seed"])
            and curve.cell.cell.row.name == line["row"]
        )
        smooth = curve.smooth[line["loss"]]
        assert [float(line[name]) for name in ("first", "50 %", "last")] == [smooth[0], smooth[30], smooth[59]]
