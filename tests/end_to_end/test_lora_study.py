"""A study whose teacher and student are trained by other kinds of LoRA than the plain one, up to its export."""

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ablate.core.errors import StudyError
from ablate.example import assets
from ablate.execution.study_run import RunOptions, run_cells
from ablate.export import export_cell
from ablate.machine.slots import Placing
from ablate.planning.project import open_study

IDS = torch.arange(40).reshape(2, 20)


def _study(folder: Path, **parts) -> Path:
    study = {
        "name": "kinds",
        "dtype": "float32",
        "data": {"source": "builtin:tiny/data/train.jsonl", "limit": 16, "train_on_prompt": False},
        "pairs": {"p": {role: {"model": f"builtin:tiny/models/{role}"} for role in ("teacher", "student")}},
        "train": {"max_steps": 3, "batch_size": 4, "warmup_steps": 1, "lr": 3e-3},
        "evaluate": {
            "tasks": ["tiny_letters"],
            "limit": 4,
            "include_path": "builtin:tiny/tasks",
            "allow_code": True,
        },
        "ablations": {"a": {"grid": {"distill.kd_ratio": [0.5]}}},
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study | parts, sort_keys=False))
    return path


def _lora(**settings):
    return {"lora": {"rank": 4, "alpha": 8} | settings}


@pytest.mark.slow
def test_a_chain_of_dora_and_patterns_is_exported_as_peft_makes_it(tmp_path):
    study = _study(
        tmp_path,
        finetune=_lora(target_modules="all-linear", use_dora=True, use_rslora=True),
        distill=_lora(target_modules=".*(q|v)_proj", use_dora=True) | {"student": "finetuned"},
    )
    project = open_study(study, tmp_path / "root")
    run_cells(project, RunOptions(placing=Placing(num_jobs=1)))
    plan = project.plan()
    cell = next(cell for cell in plan.cells if cell.row.model == "distill")
    export_cell(plan, cell, tmp_path / "export")
    theirs = AutoModelForCausalLM.from_pretrained(assets() / "models" / "student", dtype=torch.float32)
    for name in ("student_adapter", None):
        stage = cell.trained.inputs[name] if name else cell.trained
        theirs = PeftModel.from_pretrained(theirs, plan.store.folder(stage) / "out").merge_and_unload()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["all-linear"]},
        {"target_modules": [".*(q|v)_proj"]},
        {"target_modules": [r".*\.mlp\..*", "o_proj"]},
        {"target_modules": ["q_proj"], "use_rslora": True, "use_dora": True},
    ],
)
def test_studies_of_the_embedded_models_may_say_their_modules_as_peft_does(tmp_path, settings):
    open_study(_study(tmp_path, train=_lora(**settings)), tmp_path / "root").plan()


def test_a_tied_embedding_to_be_saved_is_refused_with_its_place_and_what_to_do(tmp_path):
    study = _study(tmp_path, train=_lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]))
    with pytest.raises(StudyError, match=r"s.yaml:\d+:\d+: train.lora.modules_to_save: .*lora: none") as caught:
        open_study(study, tmp_path / "root")
    assert "'lm_head'" in str(caught.value)
