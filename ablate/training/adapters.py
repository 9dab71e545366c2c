"""Low-rank adapters of ours, in the files that PEFT reads: attached for training, saved, loaded, merged."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import Json
from ablate.study.module_names import is_pattern
from ablate.study.training_recipes import Lora
from ablate.training import files
from ablate.training.adapter_file import (
    A_SUFFIX,
    B_SUFFIX,
    MAGNITUDE_SUFFIX,
    PREFIX,
    SavedModules,
)
from ablate.training.adapter_targets import out_in_shape, target_modules
from ablate.training.dora_linear import DoraLinear
from ablate.training.lora_linear import LoraLinear, linear_weight
from ablate.training.quantized import is_turned
from ablate.training.seeds import seed_of

# R rank, I width in, O width out

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Origin:
    """Which model an adapter belongs to, for readers of its files."""

    name: str | None = None
    revision: str | None = None


def attach(model: nn.Module, lora: Lora, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, LoraLinear]:
    """Freezes a model and puts a new adapter on every module that `lora.target_modules` names.

    A is uniform in +-1/sqrt(width in), as PEFT's; B is zero, so that nothing changes yet. The numbers depend on the
    seed and the module's name alone: not on the device, nor on which other modules are adapted.
    Raises StageError when a name fits no linear module, or the output head is tied to the embedding.
    """
    model.requires_grad_(False)
    targets = target_modules(model, lora)
    adapters = {name: _new_adapter(name, module, lora, seed, dtype) for name, module in targets.items()}
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter)
    return adapters


def _new_adapter(name: str, module: nn.Module, lora: Lora, seed: int, dtype: torch.dtype) -> LoraLinear:
    device = next(chain(module.parameters(), module.buffers())).device
    width_out, width_in = out_in_shape(module)
    uniform_RI = torch.rand(lora.rank, width_in, generator=torch.Generator().manual_seed(seed_of(f"{seed}/{name}")))
    lora_A_RI = ((2 * uniform_RI - 1) / math.sqrt(width_in)).to(device, dtype)
    lora_B_OR = torch.zeros(width_out, lora.rank, device=device, dtype=dtype)
    if not lora.use_dora:
        return LoraLinear(module, lora, lora_A_RI, lora_B_OR)
    _require_decomposable(name, module)
    return DoraLinear(module, lora, lora_A_RI, lora_B_OR)


def _require_decomposable(name: str, module: nn.Module) -> None:
    if type(module) not in (nn.Linear, Conv1D):
        raise StageError(f"lora.use_dora: {name!r} is a {type(module).__name__}, of which W x alone cannot be asked")
    num_zero = int((linear_weight(module) == 0).all(1 if isinstance(module, nn.Linear) else 0).sum())
    if num_zero:
        raise StageError(
            f"lora.use_dora: {num_zero} of the outputs of {name!r} have weights of zero alone, whose direction DoRA "
            "cannot divide by its norm; leave the module out of target_modules, or train it without use_dora"
        )


def named_tensors(adapters: Mapping[str, LoraLinear]) -> dict[str, nn.Parameter]:
    """-> the weights under the names that PEFT saves them by, in the order of the names."""
    named = {}
    for name in sorted(adapters):
        adapter = adapters[name]
        named[f"{PREFIX}{name}{A_SUFFIX}"] = adapter.lora_A
        named[f"{PREFIX}{name}{B_SUFFIX}"] = adapter.lora_B
        if isinstance(adapter, DoraLinear):
            named[f"{PREFIX}{name}{MAGNITUDE_SUFFIX}"] = adapter.magnitude
    return named


def config(
    adapters: Mapping[str, LoraLinear], lora: Lora, origin: Origin, saved_modules: Sequence[str] = ()
) -> dict[str, Json]:
    """-> adapter_config.json as PEFT reads it; modules under their full names where they were not named one by one."""
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    is_by_names = not (lora.is_all_linear or any(map(is_pattern, lora.target_modules)))
    targets: list[Json] = [*(lora.target_modules if is_by_names else sorted(adapters))]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.name,
        "revision": origin.revision,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": any(is_turned(adapter.base) for adapter in adapters.values()),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "modules_to_save": [*sorted(saved_modules)] or None,
    }


def save(
    folder: Path,
    adapters: Mapping[str, LoraLinear],
    lora: Lora,
    origin: Origin,
    saved: SavedModules | None = None,
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained does."""
    saved = saved or SavedModules()
    named = named_tensors(adapters) | {f"{PREFIX}{name}": weight for name, weight in saved.weights.items()}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in named.items()}
    files.save(weights, folder / WEIGHTS, {"format": "pt"})
    settings = config(adapters, lora, origin, saved.modules)
    disk.write(folder / CONFIG, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """-> (adapter_config.json, weights by name). Raises StageError for a folder that holds no readable adapter."""
    try:
        return json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: no readable adapter ({error}); remove its stage folder and run again") from error
