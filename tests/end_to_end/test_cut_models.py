"""Students cut from their teacher, and teachers cut to their likeliest tokens: from a study's file to its export."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.toys import wait_for
from transformers import AutoModelForCausalLM, AutoTokenizer

from ablate.execution.study_run import RunOptions, run_cells
from ablate.export import export_cell
from ablate.machine.slots import Placing
from ablate.maintenance.garbage import find
from ablate.maintenance.references import needed_by_studies
from ablate.planning.project import open_study
from ablate.report.write import write_report
from ablate.store.job import read_metrics

IDS = torch.arange(40).reshape(2, 20)
RUN = RunOptions(placing=Placing(num_jobs=1))
PRUNED = {
    "model": "builtin:tiny/models/teacher",
    "prune": {"layers": [0, 2], "width": {"intermediate": 0.5, "heads": 2}},
}


def study_of(folder: Path, student: dict, grid: dict, **train) -> Path:
    study = {
        "name": "cut",
        "dtype": "float32",
        "data": {"source": "builtin:tiny/data/train.jsonl", "limit": 40, "train_on_prompt": False, "holdout": 8},
        "pairs": {"p": {"teacher": {"model": "builtin:tiny/models/teacher"}, "student": student}},
        "train": {"max_steps": 4, "batch_size": 4, "warmup_steps": 1, "lora": {"rank": 4, "alpha": 8}} | train,
        "distill": {"teacher": "baseline"},
        "evaluate": {"tasks": ["tiny_letters"], "limit": 4, "include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {"a": {"grid": grid, "references": ["student/baseline"], "control": "student/baseline"}},
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def distilled(plan) -> list:
    return [cell for cell in plan.cells if cell.row.model == "distill"]


def kill_while_it_distils(study: Path, root: Path) -> Path:
    """Ends the run and its worker once the distillation has saved something. -> the folder of the attempt."""
    command = [sys.executable, "-m", "ablate", "run", str(study), "--root", str(root), "--jobs", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        saved: list[Path] = []
        wait_for(lambda: saved.extend(root.glob("runs/attempts/*/*/checkpoints/*")) or saved)
        assert driver.poll() is None
        attempt = saved[0].parent.parent
        os.kill(json.loads((attempt / "worker.json").read_text())["pid"], signal.SIGKILL)
        driver.kill()
    return attempt


def test_a_student_cut_from_its_own_teacher_is_killed_once_resumed_and_exported_as_an_ordinary_model(tmp_path):
    study = study_of(tmp_path, PRUNED, {"distill.kd_ratio": [0.5]}, max_steps=200, checkpoint_every_s=0.1)
    attempt = kill_while_it_distils(study, tmp_path / "root")
    assert json.loads((attempt / "attempt.json").read_text())["payload"]["kind"] == "distill"
    project = open_study(study, tmp_path / "root")
    run_cells(project, RUN)
    plan = project.plan()
    (cell,) = distilled(plan)
    assert [plan.label(stage) for stage in plan.stages if stage.kind == "prune"] == [
        "prune teacher, layers 0 2, intermediate 0.5, heads 2"
    ]
    assert attempt.parent.joinpath("2").is_dir()
    steps = [record["step"] for record in read_metrics(plan.store.folder(cell.trained) / "metrics.jsonl")]
    assert steps == [*range(1, 201)]
    export_cell(plan, cell, tmp_path / "export")
    require_student_with_adapter(plan, cell, tmp_path / "export")
    page = (write_report(plan) / "report.md").read_text()
    assert "Baseline student (cut to layers 0 2, intermediate 0.5, heads 2)" in page
    pieces = find(plan.store, needed_by_studies(plan.store), min_age_s=0.0)
    assert [piece for piece in pieces if "prune-" in str(piece.path)] == []


def require_student_with_adapter(plan, cell, export: Path) -> None:
    """What is exported is the cut model, which anybody can load, with the adapter in it."""
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    config = model.config
    assert (config.num_hidden_layers, config.intermediate_size, config.num_attention_heads) == (2, 96, 2)
    assert AutoTokenizer.from_pretrained(export)("a").input_ids
    cut = plan.store.folder(cell.evaluate.inputs["model"]) / "out"
    adapter = load_file(plan.store.folder(cell.trained) / "out/adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.model.layers.1.self_attn.q_proj.lora_{part}.weight"] for part in "AB")
    base = AutoModelForCausalLM.from_pretrained(cut, dtype=torch.float32)
    expected = base.model.layers[1].self_attn.q_proj.weight + 2 * b @ a
    torch.testing.assert_close(model.model.layers[1].self_attn.q_proj.weight, expected, rtol=1e-6, atol=1e-6)
    assert model(input_ids=IDS).logits.isfinite().all()
    assert "prune teacher, layers 0 2" in (export / "README.md").read_text()


def test_a_study_of_cut_teachers_tells_what_each_cut_costs_beside_the_whole_teacher(tmp_path):
    grid = {"distill.teacher_top_k": ["none", 8, 64]}
    study = study_of(tmp_path, {"model": "builtin:tiny/models/student"}, grid)
    project = open_study(study, tmp_path / "root")
    run_cells(project, RUN)
    plan = project.plan()
    assert [stage.settings.form for stage in plan.all_stages if stage.kind == "teacher_cache"] == ["hidden"]
    assert all("read from teacher_cache" in notes_of(plan, cell)["teacher"] for cell in distilled(plan))
    first = [next(read_metrics(plan.store.folder(cell.trained) / "metrics.jsonl")) for cell in distilled(plan)]
    assert first[1]["kd_loss"] < first[2]["kd_loss"] < first[0]["kd_loss"]  # fewer events, less to tell apart
    for step in first[1:]:
        whole = step["teacher_entropy"] + step["teacher_entropy_lost"]
        assert whole == pytest.approx(first[0]["teacher_entropy"], rel=1e-5)
    table = write_report(project.plan()) / "tables/a-teacher-cuts.csv"
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [line["exact_row"] for line in lines] == ["teacher_top_k=none"] * 2
    assert [int(line["bytes"]) for line in lines] == [8 * 8 + 12, 64 * 8 + 12]
    assert {int(line["bytes_hidden"]) for line in lines} == {96 * 4}
    for name in ("teacher_mass_left_out", "teacher_entropy_lost", "teacher_kl_error"):
        costs = [float(line[name]) for line in lines]
        assert costs[0] > costs[1] > 0
    assert [line["difference"] != "" for line in lines] == [True, True]


def notes_of(plan, cell) -> dict:
    return json.loads((plan.store.folder(cell.trained) / "stage.json").read_text())["provenance"]["notes"]
