"""What the two files of an adapter say, ours or PEFT's: each module's part in it, all settings understood."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.core.patterns import PatternError, fullmatching
from ablate.study.training_recipes import scale_of

# R rank, I width in, O width out

PREFIX = "base_model.model."
A_SUFFIX, B_SUFFIX, MAGNITUDE_SUFFIX = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"

_WITHOUT_EFFECT = frozenset({
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_version",
    "lora_dropout", "fan_in_fan_out", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "megatron_core", "qalora_group_size", "eva_config", "runtime_config", "ephemeral_gpu_offload",
})  # fmt: skip
"""Settings that change nothing of weights that are trained: which modules they are for is told by their names."""
_KNOWN = frozenset({
    "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern",
    "bias", "init_lora_weights",
})  # fmt: skip
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to draw A and B that leave the model's own weights as they are."""


@dataclass(frozen=True, eq=False)
class ModuleAdapter:
    """The adapter of one linear module."""

    lora_A_RI: Tensor
    lora_B_OR: Tensor
    scale: float
    magnitude_O: Tensor | None = None
    """Of DoRA."""

    @property
    def shape(self) -> tuple[int, int]:
        """(width out, width in)."""
        return len(self.lora_B_OR), self.lora_A_RI.shape[1]

    def on(self, device: torch.device) -> "ModuleAdapter":
        """-> the same on another device."""
        magnitude_O = None if self.magnitude_O is None else self.magnitude_O.to(device)
        return ModuleAdapter(self.lora_A_RI.to(device), self.lora_B_OR.to(device), self.scale, magnitude_O)

    def delta(self, device: torch.device | None = None) -> Tensor:
        """-> s B A (width out x width in), in float32 or wider, whatever the file's dtype; made where it is wanted."""
        dtype = torch.promote_types(torch.promote_types(self.lora_A_RI.dtype, self.lora_B_OR.dtype), torch.float32)
        return (self.lora_B_OR.to(device, dtype) @ self.lora_A_RI.to(device, dtype)).mul_(self.scale)

    def merged(self, weight_OI: Tensor) -> Tensor:
        """-> W + s B A, in float32 or wider; with DoRA m/n times that, n the norms of its rows."""
        delta_OI = self.delta(weight_OI.device)
        is_wide = torch.promote_types(delta_OI.dtype, weight_OI.dtype) == delta_OI.dtype
        merged_OI = delta_OI.add_(weight_OI) if is_wide else weight_OI + delta_OI
        if self.magnitude_O is None:
            return merged_OI
        norm_O: Tensor = torch.linalg.vector_norm(merged_OI, dim=1)
        return merged_OI * (self.magnitude_O.to(weight_OI.device) / norm_O)[:, None]


@dataclass(frozen=True)
class SavedModules:
    """What is trained whole beside adapters."""

    modules: Sequence[str] = ()
    """Their full names."""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """By the full names of the model's parameters."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as it is merged."""

    adapted: Mapping[str, ModuleAdapter]
    """By the full names of the modules."""
    saved: Mapping[str, Tensor]
    """Weights that take the place of the model's, by the full names of its parameters."""


def parse(settings: Any, weights: Mapping[str, Tensor], where: Path) -> AdapterFile:
    """adapter_config.json and the tensors beside it -> the adapter.

    Raises StageError for a setting that would change what the weights mean and is not known here, and for tensors
    that the settings do not explain.
    """
    try:
        _require_known(settings)
        names = [name.removesuffix(A_SUFFIX) for name in weights if name.endswith(A_SUFFIX)]
        adapted = {name.removeprefix(PREFIX): _adapter(name, settings, weights) for name in names}
        parts = {name + suffix for name in names for suffix in (A_SUFFIX, B_SUFFIX, MAGNITUDE_SUFFIX)}
        saved = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if name not in parts}
        _require_explained(saved, settings.get("modules_to_save") or [])
    except (KeyError, TypeError, AttributeError) as error:
        raise StageError(f"{where}: adapter_config.json is none of a LoRA adapter ({error!r})") from error
    except (ValueError, PatternError) as error:
        raise StageError(f"{where}: {error}") from error
    return AdapterFile(adapted, saved)


def _require_known(settings: Mapping[str, Any]) -> None:
    """Raises ValueError naming every setting that may change what the weights mean and is not known here."""
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"an adapter of peft_type {settings.get('peft_type')!r}; LORA alone can be merged")
    unknown = {name: value for name, value in settings.items() if value and name not in _WITHOUT_EFFECT | _KNOWN}
    if settings.get("bias", "none") != "none":
        unknown["bias"] = settings["bias"]
    if (start := settings.get("init_lora_weights")) not in _PLAIN_STARTS:
        unknown["init_lora_weights"] = start
    if settings.get("use_rslora") and (settings.get("rank_pattern") or settings.get("alpha_pattern")):
        unknown["use_rslora beside rank_pattern or alpha_pattern"] = True
    if unknown:
        listed = ", ".join(f"{name}: {value!r}" for name, value in sorted(unknown.items()))
        raise ValueError(
            f"the adapter's settings say {listed}, which cannot be merged here; merge it with peft "
            "(merge_and_unload), save that model and name its folder"
        )


def _adapter(name: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ModuleAdapter:
    lora_A_RI, lora_B_OR = weights[name + A_SUFFIX], weights.get(name + B_SUFFIX)
    magnitude_O = weights.get(name + MAGNITUDE_SUFFIX)
    if lora_B_OR is None:
        raise ValueError(f"{name} has lora_A and no lora_B: half of an adapter")
    module = name.removeprefix(PREFIX)
    rank = rank_of(module, settings)
    if lora_A_RI.dim() != 2 or lora_B_OR.dim() != 2 or {len(lora_A_RI), lora_B_OR.shape[1]} != {rank}:
        shapes = f"{tuple(lora_A_RI.shape)} and {tuple(lora_B_OR.shape)}"
        raise ValueError(f"{name}: lora_A and lora_B have shapes {shapes}; its rank is to be {rank}")
    if bool(settings.get("use_dora")) != (magnitude_O is not None):
        raise ValueError(f"{name}: use_dora is {settings.get('use_dora')}, and lora_magnitude_vector does not fit that")
    if magnitude_O is not None and magnitude_O.shape != (len(lora_B_OR),):
        raise ValueError(f"{name}: {len(lora_B_OR)} magnitudes are expected, got {tuple(magnitude_O.shape)}")
    alpha = _of_pattern(settings.get("alpha_pattern"), module, settings["lora_alpha"])
    return ModuleAdapter(lora_A_RI, lora_B_OR, scale_of(alpha, rank, bool(settings.get("use_rslora"))), magnitude_O)


def rank_of(module: str, settings: Mapping[str, Any]) -> int:
    """-> the rank that an adapter_config.json says of a module. Raises PatternError where its pattern never ends."""
    return int(_of_pattern(settings.get("rank_pattern"), module, settings["r"]))


def _of_pattern(by_pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """-> what the first pattern says that matches the end of a module's name, as PEFT takes it."""
    for pattern, value in (by_pattern or {}).items():
        if fullmatching(rf"(.*\.)?({pattern})", (module,)):
            return value
    return default


def _require_explained(saved: Mapping[str, Tensor], modules: Sequence[str]) -> None:
    for name in saved:
        if not any(f".{module}." in f".{name}" for module in modules):
            raise ValueError(
                f"the tensor {name!r} is no part of an adapter, and of no module in modules_to_save "
                f"({', '.join(modules) or 'none'})"
            )
    for module in modules:
        if not any(f".{module}." in f".{name}" for name in saved):
            raise ValueError(f"modules_to_save has {module!r}, of which there are no weights")
