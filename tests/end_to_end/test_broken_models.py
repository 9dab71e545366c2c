"""Studies of models that are not what their files say, run to their end: no table has a number from a random weight."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from ablate.example import assets
from ablate.execution.study_run import RunOptions
from ablate.export import export_cell
from ablate.machine.slots import Placing
from ablate.planning.project import open_study
from ablate.run import run_study

STUDENT = assets() / "models/student"
IDS = torch.arange(20)[None] * 3


def _adapter(folder: Path) -> None:
    """As a user of peft saves one, with the name of the base that it was given."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(STUDENT)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"])
    adapted = peft.get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "builtin:tiny/models/student"
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _renamed(folder: Path) -> None:
    """In a way that no header tells alone: the last norm is called otherwise."""
    shutil.copytree(STUDENT, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.final_norm.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors")


def _study(folder: Path) -> Path:
    _adapter(folder / "tuned")
    _renamed(folder / "renamed")
    lora = {"rank": 2, "alpha": 4, "target_modules": ["v_proj"]}
    study = {
        "name": "s",
        "dtype": "float32",
        "data": {"source": "builtin:tiny/data/train.jsonl", "limit": 8},
        "pairs": {
            "good": {"teacher": {"model": "builtin:tiny/models/teacher"}, "student": {"model": "./tuned"}},
            "student_bad": {"teacher": {"model": "builtin:tiny/models/teacher"}, "student": {"model": "./renamed"}},
            "teacher_bad": {"teacher": {"model": "./renamed"}, "student": {"model": "./tuned"}},
        },
        "train": {"max_steps": 1, "batch_size": 4, "warmup_steps": 0},
        "distill": {"teacher": "baseline"},
        "evaluate": {"tasks": ["tiny_letters"], "limit": 4, "include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {
            pair: {
                "set": {"distill.pair": pair},
                "grid": {"distill.lora": [lora, None]},
                "control": "student/baseline",
                "references": ["student/baseline", "teacher/baseline"],
            }
            for pair in ("good", "student_bad", "teacher_bad")
        },
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.mark.slow
def test_a_run_gives_numbers_of_sound_models_alone(tmp_path, capsys):
    project = open_study(_study(tmp_path), tmp_path / "root")
    run_study(project, RunOptions(placing=Placing(num_jobs=1), is_keep_going=True))
    output = capsys.readouterr().out
    assert "is an adapter: it is merged on builtin:tiny/models/student" in output
    assert "1 tensor of the model is in no file (model.norm.weight)" in output
    plan = project.plan(is_online=False)
    done = {cell.name.split("@")[0] for cell in plan.cells if plan.store.done(cell.evaluate)}
    assert {name for name in done if "kd" not in name and "lora" not in name} == {
        "good/student/baseline",
        "good/teacher/baseline",
        "student_bad/teacher/baseline",
        "teacher_bad/student/baseline",
    }
    assert len([name for name in done if name.startswith("good/")]) == 4
    assert len(done) == 6
    assert_is_the_adapter_merged_by_peft(plan, tmp_path)


def assert_is_the_adapter_merged_by_peft(plan, folder):
    cell = next(cell for cell in plan.cells if cell.name == "good/student/baseline")
    export_cell(plan, cell, folder / "exported")
    ours = transformers.AutoModelForCausalLM.from_pretrained(folder / "exported").eval()
    plain = transformers.AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32).eval()
    theirs = peft.PeftModel.from_pretrained(plain, folder / "tuned").merge_and_unload()
    torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    card = (folder / "exported/README.md").read_text()
    assert "- model student with content" in card
    assert "- model tuned with content" in card
    page = next((folder / "root/reports").glob("*/report.md")).read_text()
    assert "tuned (an adapter, merged on student)" in page
