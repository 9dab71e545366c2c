"""Whether an adapter's files are whole and fit a model, so that a merge leaves nothing of them out."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError, did_you_mean
from ablate.training.tensor_checks import few

PREFIX = "base_model.model."
"""Of every tensor in a file of PEFT's."""
PARTS = re.compile(r"(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_magnitude_vector)((?<=vector)\.weight)?")
UNMERGED = ("use_rslora", "use_dora", "modules_to_save")
"""Settings that change what an adapter adds, and are not merged here."""
OTHERS = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others change the base's own weights
}
"""Settings that are merged with these values alone."""
MEANINGLESS = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout",
    "target_modules", "fan_in_fan_out", "inference_mode", "layers_to_transform", "layers_pattern", "exclude_modules",
    "auto_mapping", "peft_version", "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "runtime_config", "ensure_weight_tying", "qalora_group_size", "bias", "init_lora_weights", *UNMERGED,
})  # fmt: skip
"""Settings that a merge needs not know, or that are looked at here."""


def require_fitting(model: Any, folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Raises StageError where an adapter would be merged in part, or as another than PEFT has it.

    Every tensor is one of a module of the model, each module has both of its matrices in its own shape and the rank,
    and every module that `target_modules` names has them.
    """
    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)}
    problems = [*_setting_faults(settings), *_tensor_faults(settings, weights, linear)]
    if not problems:
        problems = list(_lacking(settings, weights, linear))
    if problems:
        raise StageError(f"{folder}: this adapter cannot be merged on {type(model).__name__}: {'; '.join(problems)}")


def _setting_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    if (kind := settings.get("peft_type")) != "LORA":
        yield f"it is a {kind} adapter; LORA is taken"
    for name, value in settings.items():
        possible = OTHERS.get(name)
        if possible is not None and value not in possible:
            yield f"{name} is {value!r}; {' or '.join(map(repr, possible))} is taken"
        elif value and name in UNMERGED:
            yield f"{name}: {value!r} is not merged here: merge it with PEFT (`merge_and_unload`) and name the result"
        elif value and name not in MEANINGLESS:
            yield f"{name}: {value!r} is not known here, and could change what it adds: merge it with PEFT"
    if not isinstance(settings.get("r"), int) or not isinstance(settings.get("lora_alpha"), int | float):
        yield f"r and lora_alpha are to be numbers, got {settings.get('r')!r} and {settings.get('lora_alpha')!r}"


def _tensor_faults(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], linear: Mapping[str, nn.Module]
) -> Iterator[str]:
    if not weights:
        yield "it holds no tensors"
    saved = tuple(settings.get("modules_to_save") or ())
    parts = _parts(weights, saved)
    if unknown := [
        name
        for name in weights
        if name not in {tensor for named in parts.values() for tensor in named.values()} and not _is_saved(name, saved)
    ]:
        yield f"{len(unknown)} of its tensors are none of LoRA's as PEFT saves them ({few(unknown)})"
    if lacking := [name for name in parts if name not in linear]:
        yield f"the model has no linear module {few(lacking)}.{did_you_mean(lacking[0], linear)}"
    for name in parts.keys() & linear.keys():
        yield from _module_faults(
            name, linear[name], settings, {part: weights[key] for part, key in parts[name].items()}
        )
    bad = [name for name, weight in weights.items() if not weight.is_floating_point() or not weight.isfinite().all()]
    if bad:
        yield f"these tensors are not finite floating-point numbers: {few(bad)}"


def _parts(weights: Collection[str], saved: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """-> module -> part -> name of the tensor."""
    parts: dict[str, dict[str, str]] = {}
    for name in weights:
        known = PARTS.fullmatch(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if known and not _is_saved(name, saved):
            parts.setdefault(known["module"], {})[known["part"]] = name
    return parts


def _is_saved(name: str, saved: tuple[str, ...]) -> bool:
    """Whether a tensor is of a module that was trained whole."""
    module = name.removeprefix(PREFIX).rpartition(".")[0]
    return any(f".{module}.".find(f".{one}.") >= 0 for one in saved)


def _module_faults(name: str, module: Any, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    first, second = module.weight.shape
    width_out, width_in = (second, first) if isinstance(module, Conv1D) else (first, second)
    rank = settings.get("r")
    shapes: dict[str, tuple[Any, ...]] = {"lora_A.weight": (rank, width_in), "lora_B.weight": (width_out, rank)}
    shapes |= {"lora_magnitude_vector": (width_out,)} if settings.get("use_dora") else {}
    for part, shape in shapes.items():
        if part not in tensors:
            yield f"{name} has no {part}"
        elif tuple(tensors[part].shape) != shape:
            yield f"{part} of {name} is {tuple(tensors[part].shape)}, {shape} is expected of rank {rank}"
    yield from (f"{name} has a {part} and use_dora is false" for part in tensors.keys() - shapes.keys())


def _lacking(settings: Mapping[str, Any], weights: Collection[str], linear: Mapping[str, nn.Module]) -> Iterator[str]:
    """-> modules that the settings name and that no tensor is for; of layers that are told apart nothing is known."""
    if settings.get("layers_to_transform") is not None or settings.get("exclude_modules"):
        return
    saved = tuple(settings.get("modules_to_save") or ())
    parts = _parts(weights, saved)
    targets = settings.get("target_modules")
    lacking = [
        name
        for name in linear
        if name not in parts and _is_named(name, targets) and not _is_saved(f"{name}.weight", saved)
    ]
    if lacking:
        yield f"its target_modules name {few(lacking)}, and its file has no tensors for that"


def _is_named(name: str, targets: Any) -> bool:
    """Whether PEFT's target_modules name a module: one regular expression, or ends of names."""
    if isinstance(targets, str):
        return targets != "all-linear" and re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets or ())
