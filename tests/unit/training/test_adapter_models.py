"""An adapter named as a model is PEFT's merge of it on its base, or refused; never a part of it."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import tiny_models as tiny

from ablate.core.errors import StageError
from ablate.training import models

IDS = torch.arange(20).reshape(2, 10) * 3
TARGETS = {"llama": ["q_proj", "down_proj"], "qwen2": ["v_proj", "o_proj"], "gpt2": ["c_attn", "c_proj"]}
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def adapter(folder: Path, base: Path, family: str, **settings) -> Path:
    """-> an adapter as a user of peft saves one, with random numbers."""
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 3, "lora_alpha": 7, "target_modules": TARGETS[family], "init_lora_weights": True} | settings
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, *folders: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    for folder in folders:
        model = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    return model(input_ids=IDS).logits.detach()


def merged(base: Path, *folders: Path) -> torch.Tensor:
    return models.load_merged(base, folders, "float32").model(input_ids=IDS).logits.detach()


@pytest.fixture(scope="module", params=TARGETS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(family, tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("base") / family, family, 1)


def test_an_adapter_is_merged_as_peft_merges_it(base, family, tmp_path):
    first = adapter(tmp_path / "first", base, family)
    second = adapter(tmp_path / "second", base, family, r=2, layers_to_transform=[1])
    assert not torch.equal(merged(base), merged(base, first))
    torch.testing.assert_close(merged(base, first), merged_by_peft(base, first))
    torch.testing.assert_close(merged(base, first, second), merged_by_peft(base, first, second))


def test_an_adapter_beside_weights_is_not_used(base, family, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(base, both)
    adapter(tmp_path / "adapter", base, family)
    for name in (WEIGHTS, CONFIG):
        shutil.copy(tmp_path / "adapter" / name, both)
    assert torch.equal(merged(both), merged(base))


MERGED = {
    "rank_pattern": {"rank_pattern": {"1.self_attn.q_proj": 2, "h.1.attn.c_attn": 2, "1.self_attn.v_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 1, "c_attn": 1, "v_proj": 1}},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "modules_to_save": {},  # of another name in each family
}


@pytest.mark.parametrize("kind", MERGED)
def test_a_setting_of_pefts_means_what_it_means_there(base, family, kind, tmp_path):
    settings = MERGED[kind]
    if kind == "modules_to_save":
        settings = {"modules_to_save": ["ln_f" if family == "gpt2" else "model.norm"]}
    folder = adapter(tmp_path / "adapter", base, family, **settings)
    torch.testing.assert_close(merged(base, folder), merged_by_peft(base, folder), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_of_any_dtype_is_summed_as_pefts(base, family, dtype, tmp_path):
    folder = adapter(tmp_path / "adapter", base, family)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first].float()}, folder / WEIGHTS)
    torch.testing.assert_close(merged(base, folder), merged_by_peft(base, folder), rtol=1e-5, atol=1e-5)


def test_the_models_own_head_that_peft_writes_beside_its_adapter_is_no_matter(tmp_path):
    base = tiny.save(tmp_path / "base", "llama", 1)
    folder = adapter(tmp_path / "adapter", base, "llama", target_modules=["q_proj", "lm_head"])
    name, tensors = "base_model.model.lm_head.base_layer.weight", load_file(folder / WEIGHTS)
    torch.testing.assert_close(merged(base, folder), merged_by_peft(base, folder))
    save_file(tensors | {name: tensors[name] * 2}, folder / WEIGHTS)
    with pytest.raises(StageError, match=r"'lm_head.base_layer.weight' is no part of an adapter"):
        merged(base, folder)


SILENT = [{"bias": "all"}, {"init_lora_weights": "pissa"}]


@pytest.mark.parametrize("settings", SILENT, ids=[next(iter(one)) for one in SILENT])
def test_a_setting_that_a_merge_would_lose_is_refused(base, family, settings, tmp_path):
    folder = adapter(tmp_path / "adapter", base, family, **settings)
    with pytest.raises(StageError, match=next(iter(settings))):
        merged(base, folder)


def test_a_setting_of_a_later_peft_is_not_passed_over(base, family, tmp_path):
    folder = adapter(tmp_path / "adapter", base, family)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"use_super_lora": True}))
    with pytest.raises(StageError, match="use_super_lora"):
        merged(base, folder)


def test_another_sort_of_adapter_is_refused(base, family, tmp_path):
    folder = adapter(tmp_path / "adapter", base, family)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(StageError, match="IA3"):
        merged(base, folder)


def kept(tensors, is_kept):
    return {name: tensor for name, tensor in tensors.items() if is_kept(name)}


def renamed(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def module_of(name):
    return name.partition(".lora_")[0]


EDITS = {
    "no lora_B of one module": lambda tensors, name: kept(tensors, lambda one: one != name.replace("_A", "_B")),
    "no lora_A of one module": lambda tensors, name: kept(tensors, lambda one: one != name),
    "nothing of one module": lambda tensors, name: kept(tensors, lambda one: module_of(one) != module_of(name)),
    "one tensor more": lambda tensors, name: tensors | {"base_model.model.x.weight": torch.ones(2)},
    "another prefix": lambda tensors, name: renamed(tensors, "base_model.model.", "model."),
    "the adapter's name kept": lambda tensors, name: renamed(tensors, ".weight", ".default.weight"),
    "another module": lambda tensors, name: renamed(tensors, "attn", "attention"),
    "another rank": lambda tensors, name: tensors | {name: tensors[name][:-1].clone()},
    "another width": lambda tensors, name: tensors | {name: tensors[name][:, :-1].clone()},
    "not finite": lambda tensors, name: tensors | {name: tensors[name] * float("nan")},
    "whole numbers": lambda tensors, name: tensors | {name: tensors[name].to(torch.int32)},
    "nothing": lambda tensors, name: {"x": torch.ones(1)},
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_adapter_of_which_a_part_would_be_lost_is_refused(base, family, edit, tmp_path):
    folder = adapter(tmp_path / "adapter", base, family)
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if ".lora_A." in name)
    save_file(EDITS[edit](tensors, name), folder / WEIGHTS)
    with pytest.raises(StageError, match="this adapter cannot be merged"):
        merged(base, folder)


def test_an_adapter_of_another_model_is_refused(base, family, tmp_path):
    other = tiny.save(tmp_path / "other", "llama" if family == "gpt2" else "gpt2", 1)
    folder = adapter(tmp_path / "adapter", base, family)
    with pytest.raises(StageError, match="the model has no linear module"):
        merged(other, folder)
