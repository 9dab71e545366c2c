"""Low-rank adapters of ours, in the files that PEFT reads: attached for training, saved, loaded, merged."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core import disk
from ablate.core.errors import StageError, did_you_mean
from ablate.core.values import Json
from ablate.study.training_recipes import Lora
from ablate.training import files
from ablate.training.lora_linear import LoraLinear, linear_weight, seed_of

# R rank, I width in, O width out

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Origin:
    """Which model an adapter belongs to, for readers of its files."""

    name: str | None = None
    revision: str | None = None


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """-> every module that can carry an adapter, by its full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def attach(model: nn.Module, lora: Lora, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, LoraLinear]:
    """Freezes a model and puts a new adapter on every module that `lora.target_modules` names.

    A is uniform in +-1/sqrt(width in), as PEFT's; B is zero, so that nothing changes yet. The numbers depend on the
    seed and the module's name alone: not on the device, nor on which other modules are adapted.
    Raises StageError when a name fits no linear module, or the output head is tied to the embedding.
    """
    model.requires_grad_(False)
    targets = _targets(model, lora.target_modules)
    adapters = {name: _new_adapter(name, module, lora, seed, dtype) for name, module in targets.items()}
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter)
    return adapters


def _targets(model: nn.Module, wanted: tuple[str, ...]) -> dict[str, nn.Module]:
    linear = linear_modules(model)
    for target in wanted:
        if not any(_is_named(name, target) for name in linear):
            raise StageError(
                f"lora.target_modules: the model ({type(model).__name__}) has no linear module {target!r}."
                + did_you_mean(target, {name.rpartition(".")[2] for name in linear}, limit=30)
            )
    targets = {name: module for name, module in linear.items() if any(_is_named(name, target) for target in wanted)}
    _refuse_tied(model, targets)
    return targets


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _refuse_tied(model: nn.Module, targets: Mapping[str, nn.Module]) -> None:
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    for name, module in targets.items():
        if module.weight is embedding.weight:
            raise StageError(
                f"lora.target_modules: {name!r} shares its weights with the input embedding of "
                f"{type(model).__name__}, so an adapter on it could not be merged; leave it out"
            )


def _new_adapter(name: str, module: nn.Module, lora: Lora, seed: int, dtype: torch.dtype) -> LoraLinear:
    device = linear_weight(module).device
    width_out, width_in = _out_in_shape(module)
    uniform_RI = torch.rand(lora.rank, width_in, generator=torch.Generator().manual_seed(seed_of(f"{seed}/{name}")))
    lora_A_RI = ((2 * uniform_RI - 1) / math.sqrt(width_in)).to(device, dtype)
    return LoraLinear(module, lora, lora_A_RI, torch.zeros(width_out, lora.rank, device=device, dtype=dtype))


def _out_in_shape(module: nn.Module) -> tuple[int, int]:
    """-> (width out, width in); Conv1D keeps its weight the other way round."""
    first, second = linear_weight(module).shape
    return (int(second), int(first)) if isinstance(module, Conv1D) else (int(first), int(second))


def named_tensors(adapters: Mapping[str, LoraLinear]) -> dict[str, nn.Parameter]:
    """-> the weights under the names that PEFT saves them by, in the order of the names."""
    named = {}
    for name in sorted(adapters):
        named[f"{PREFIX}{name}.lora_A.weight"] = adapters[name].lora_A
        named[f"{PREFIX}{name}.lora_B.weight"] = adapters[name].lora_B
    return named


def config(adapters: Mapping[str, LoraLinear], lora: Lora, origin: Origin) -> dict[str, Json]:
    """-> adapter_config.json as PEFT reads it."""
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.name,
        "revision": origin.revision,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "fan_in_fan_out": any(isinstance(adapter.base, Conv1D) for adapter in adapters.values()),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


def save(folder: Path, adapters: Mapping[str, LoraLinear], lora: Lora, origin: Origin) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained does."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in named_tensors(adapters).items()}
    files.save(weights, folder / WEIGHTS, {"format": "pt"})
    disk.write(folder / CONFIG, json.dumps(config(adapters, lora, origin), indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """-> (adapter_config.json, weights by name). Raises StageError for a folder that holds no readable adapter."""
    try:
        return json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: no readable adapter ({error}); remove its stage folder and run again") from error


def weight_deltas(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """-> for each adapted module: its name and alpha/R B A (width out x width in), float32."""
    settings, weights = load(folder)
    scale = settings["lora_alpha"] / settings["r"]
    for name, lora_A_RI in weights.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            lora_B_OR = weights[name.replace(".lora_A.", ".lora_B.")]
            yield module, (lora_B_OR @ lora_A_RI) * scale


@torch.no_grad()
def merge_into(model: nn.Module, folder: Path) -> None:
    """Adds an adapter to the weights it was trained on, in float32 or wider; adapted weights stay in that dtype."""
    linear = linear_modules(model)
    for name, delta_OI in weight_deltas(folder):
        if name not in linear:
            raise StageError(f"{folder}: the adapter is for a module {name!r} that {type(model).__name__} lacks")
        module = linear[name]
        weight = linear_weight(module)
        delta = delta_OI.to(weight.device)
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        module.weight = nn.Parameter(wide + (delta.T if isinstance(module, Conv1D) else delta), requires_grad=False)
