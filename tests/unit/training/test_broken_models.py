"""Fifty-six ways in which teacher or student is not what its files say: none gives a number from a random weight."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny_models as tiny

from ablate.core.errors import StageError
from ablate.store.kind import KINDS
from ablate.study.training_recipes import Lora
from ablate.training import adapters

ROWS = tiny.random_rows([9, 17, 5, 12], [3, 4, 2, 1])
FAMILIES = ("llama", "gpt2")
EDITS = ("missing", "extra", "misshaped", "renamed", "prefixed", "tied", "adapter")
HARMLESS = {("gpt2", "tied"), ("llama", "adapter"), ("gpt2", "adapter")}
"""A head that equals the embedding to which it is tied; an adapter that lies beside the weights."""
NORM = {"llama": "model.norm.weight", "gpt2": "transformer.ln_f.weight"}
EMBEDDING = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}


def spoil(folder: Path, family: str, edit: str) -> None:
    weights = folder / "model.safetensors"
    tensors, norm = load_file(weights), NORM[family]
    match edit:
        case "missing":
            del tensors[norm]
        case "extra":
            tensors["model.layers.2.mlp.down_proj.weight"] = torch.ones(24, 32)
        case "misshaped":
            tensors[norm] = tensors[norm][:-1].clone()
        case "renamed":
            tensors[norm.replace("norm", "final_norm").replace("ln_f", "ln_final")] = tensors.pop(norm)
        case "prefixed":
            tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
        case "tied" if family == "llama":
            del tensors["lm_head.weight"]  # of a model whose head is its own
        case "tied":
            tensors["lm_head.weight"] = tensors[EMBEDDING[family]].clone()
        case "adapter":
            model = tiny.make(family, 1)
            lora = Lora(rank=2, alpha=64.0, target_modules=tiny.targets(family))
            attached = adapters.attach(model, lora, 0)
            for adapter in attached.values():
                torch.nn.init.normal_(adapter.lora_B)
            adapters.save(folder, attached, lora, adapters.Origin())
    save_file(tensors, weights)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, dict[str, Path]]:
    """Family -> inputs of a distillation."""
    made = {}
    for family in FAMILIES:
        root = tmp_path_factory.mktemp(family)
        made[family] = tiny.stage_inputs(root, ROWS, tiny.random_rows([7], seed=9), family)
    return made


def edited(inputs: dict[str, Path], role: str, family: str, edit: str, root: Path) -> dict[str, Path]:
    """-> the same inputs with another model for one role."""
    manifest = json.loads((inputs[role] / "out/manifest.json").read_text())
    shutil.copytree(manifest["path"], root / "model")
    spoil(root / "model", family, edit)
    (root / role / "out").mkdir(parents=True)
    (root / role / "out/manifest.json").write_text(json.dumps(manifest | {"path": str(root / "model")}))
    return inputs | {role: root / role}


def distilled(folder: Path, inputs: dict[str, Path], family: str, kind: str) -> dict[str, bytes]:
    """-> what a distillation of one step leaves."""
    lora = {"rank": 2, "alpha": 4.0, "target_modules": list(tiny.targets(family))} if kind == "lora" else None
    recipe = {"max_steps": 1, "batch_size": 4, "warmup_steps": 0, "lr": 1e-2, "lora": lora}
    stage = KINDS["distill"]
    settings = stage.Settings.model_validate({"recipe": recipe, "dtype": "float32", "seed": 0})
    job = replace(tiny.job(folder, settings, **inputs), checks=None)
    stage.run(job)
    return {path.name: path.read_bytes() for path in job.out.iterdir()}


@pytest.mark.parametrize("kind", ["lora", "everything"])
@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_not_what_its_files_say_trains_nothing(family, edit, role, kind, sound, tmp_path):
    inputs = edited(sound[family], role, family, edit, tmp_path / "edited")
    if (family, edit) in HARMLESS:
        ours = distilled(tmp_path / "edited-run", inputs, family, kind)
        assert ours == distilled(tmp_path / "sound-run", sound[family], family, kind)
        return
    with pytest.raises(StageError, match="do not fit"):
        distilled(tmp_path / "run", inputs, family, kind)
    assert not list((tmp_path / "run/out").iterdir())
    assert not (tmp_path / "run/metrics.jsonl").exists()
