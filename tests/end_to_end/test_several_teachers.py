"""A study of several teachers and of hidden states, killed once on its way, up to the export of an ordinary model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ablate.example import assets
from ablate.export import export_cell
from ablate.planning.project import open_study
from ablate.store.job import read_metrics

IDS = torch.arange(40).reshape(2, 20)
BIG, CLOSE = ({"pair": "big", "teacher": "baseline", "weight": 3}, {"pair": "close", "teacher": "baseline"})


def _study(folder: Path) -> Path:
    teachers = {"big": "teacher", "close": "close_teacher"}
    study = {
        "name": "several",
        "dtype": "float32",
        "data": {"source": "builtin:tiny/data/train.jsonl", "limit": 40, "holdout": 8, "train_on_prompt": False},
        "pairs": {
            pair: {
                "teacher": {"model": f"builtin:tiny/models/{teacher}"},
                "student": {"model": "builtin:tiny/models/student"},
            }
            for pair, teacher in teachers.items()
        },
        "train": {"max_steps": 40, "batch_size": 4, "warmup_steps": 1, "lr": 3e-3, "checkpoint_every_s": 1e-3}
        | {"lora": {"rank": 4, "alpha": 8}},
        "distill": {"teacher": "baseline"},
        "evaluate": {"tasks": ["tiny_letters"], "limit": 4}
        | {"include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {
            "a": {
                "rows": [
                    {"label": "several", "settings": {"distill.teachers": [BIG, CLOSE]}},
                    {"label": "features", "settings": {"distill.features": "cosine"}},
                ],
                "references": ["student/baseline"],
                "control": "student/baseline",
            },
        },
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def _run(study: Path, root: Path, *, is_killed: bool) -> list[str]:
    """-> the keys of the distillations that were killed, each once, where they had a checkpoint."""
    command = [sys.executable, "-m", "ablate", "run", str(study), "--root", str(root), "--jobs", "1"]
    killed: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while is_killed and process.poll() is None:
            for file in root.glob("runs/attempts/*/1/worker.json"):
                if file.parent.parent.name not in killed and _is_half_way(file.parent):
                    killed.append(file.parent.parent.name)
                    os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
            time.sleep(0.01)
        text, _ = process.communicate()
    assert process.returncode == 0, text
    return killed


def _is_half_way(attempt: Path) -> bool:
    request = json.loads((attempt / "attempt.json").read_text())
    is_working = not (attempt / "exit.json").exists()
    return request["kind"] == "distill" and is_working and any(attempt.glob("checkpoints/*/manifest.json"))


def _results(root: Path) -> dict[str, tuple[list[dict[str, float]], dict[str, bytes]]]:
    """-> folder of a distillation -> its curve, but for what a clock or the memory says, and its files."""
    results = {}
    for folder in sorted(root.glob("runs/stages/distill-*")):
        curve = [
            {name: value for name, value in record.items() if name not in ("seconds", "peak_memory")}
            for record in read_metrics(folder / "metrics.jsonl")
        ]
        results[folder.name] = curve, {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}
    return results


@pytest.mark.slow
def test_killed_once_it_comes_to_the_same_bytes_and_an_ordinary_model(tmp_path):
    study = _study(tmp_path)
    _run(study, tmp_path / "whole", is_killed=False)
    killed = _run(study, tmp_path / "killed", is_killed=True)
    assert len(killed) == 2
    results = _results(tmp_path / "killed")
    assert len(results) == 2
    assert results == _results(tmp_path / "whole")
    tries = json.loads(next(tmp_path.glob(f"killed/runs/stages/distill-{killed[0]}/stage.json")).read_text())
    assert tries["provenance"]["attempts"] == 2
    plan = open_study(study, tmp_path / "killed").plan()
    for cell in (cell for cell in plan.cells if cell.row.model == "distill"):
        dest = tmp_path / "export" / cell.trained.key12
        export_cell(plan, cell, dest)
        theirs = AutoModelForCausalLM.from_pretrained(assets() / "models" / "student", dtype=torch.float32)
        adapter = plan.store.folder(cell.trained) / "out"
        theirs = PeftModel.from_pretrained(theirs, adapter).merge_and_unload()
        ours = AutoModelForCausalLM.from_pretrained(dest, dtype=torch.float32)
        torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert not list(dest.glob("*projection*"))
