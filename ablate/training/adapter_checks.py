"""Whether an adapter fits a model and is whole, so that a merge leaves nothing of it out."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.core.errors import StageError, did_you_mean
from ablate.core.patterns import PatternError, fullmatching
from ablate.training.adapter_file import PREFIX, AdapterFile, ModuleAdapter, parse
from ablate.training.adapter_targets import is_within, linear_modules, out_in_shape
from ablate.training.tensor_checks import few


def fitting(
    model: Any,
    folder: Path,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    weight_of: Callable[[str], Tensor],
) -> AdapterFile:
    """-> the adapter. Raises StageError where it would be merged in part, or as another than PEFT has it.

    `weight_of`: name of a parameter -> it, as it is before the adapter.

    Its settings are understood and explain every tensor (`parse`), every tensor is finite and of a module of the model
    in its shape, and every module that `target_modules` names has one.
    """
    name = type(model).__name__
    try:
        adapter = parse(settings, _without_copies(weights, model, settings, weight_of), folder)
    except StageError as error:
        why = str(error).removeprefix(f"{folder}: ")
        raise StageError(f"{folder}: this adapter cannot be merged on {name}: {why}") from error
    linear = linear_modules(model)
    problems = [*_tensor_faults(weights), *_module_faults(adapter.adapted, linear)]
    try:
        problems = problems or list(_lacking(settings, {*adapter.adapted, *_modules_of(adapter.saved)}, linear))
    except PatternError as error:
        problems = [str(error)]
    if problems:
        raise StageError(f"{folder}: this adapter cannot be merged on {name}: {'; '.join(problems)}")
    return adapter


def _without_copies(
    weights: Mapping[str, Tensor], model: nn.Module, settings: Any, weight_of: Callable[[str], Tensor]
) -> Mapping[str, Tensor]:
    """-> an adapter's tensors without those that are the model's own weights.

    PEFT writes them beside the adapter of a head, and where `save_embedding_layers` says so.
    """
    saved = settings.get("modules_to_save") if isinstance(settings, dict) else None
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names = {name: name.removeprefix(PREFIX).replace(".base_layer.", ".") for name in weights}
    copies = {name for name in names if names[name] in own and _is_copy(weights[name], weight_of(names[name]))}
    return weights if saved else {name: weight for name, weight in weights.items() if name not in copies}


def _is_copy(weight: Tensor, own: Tensor) -> bool:
    return weight.shape == own.shape and torch.equal(weight, own.to("cpu", weight.dtype))


def _tensor_faults(weights: Mapping[str, Tensor]) -> Iterator[str]:
    if not weights:
        yield "it holds no tensors"
    bad = [name for name, weight in weights.items() if not weight.is_floating_point() or not weight.isfinite().all()]
    if bad:
        yield f"these tensors are not finite floating-point numbers: {few(bad)}"


def _module_faults(adapted: Mapping[str, ModuleAdapter], linear: Mapping[str, nn.Module]) -> Iterator[str]:
    if lacking := [name for name in adapted if name not in linear]:
        yield f"the model has no linear module {few(lacking)}.{did_you_mean(lacking[0], linear)}"
    for name in adapted.keys() & linear.keys():
        shape = out_in_shape(linear[name])
        if adapted[name].shape != shape:
            widths = adapted[name].shape
            yield f"the adapter of {name} is {widths[0]} x {widths[1]}, the module {shape[0]} x {shape[1]}"


def _modules_of(parameters: Collection[str]) -> Iterator[str]:
    yield from (name.rpartition(".")[0] for name in parameters)


def _lacking(settings: Mapping[str, Any], trained: Collection[str], linear: Mapping[str, nn.Module]) -> Iterator[str]:
    """-> modules that the settings name and no tensor is for; of layers that are chosen apart nothing is known."""
    if settings.get("layers_to_transform") is not None or settings.get("exclude_modules"):
        return
    named = _named(settings.get("target_modules"), tuple(linear))
    lacking = [name for name in named if not is_within(name, trained)]
    if lacking:
        yield f"its target_modules name {few(lacking)}, and its file has no tensors for that"


def _named(targets: Any, names: tuple[str, ...]) -> Collection[str]:
    """-> the modules that PEFT's target_modules name: by one regular expression, or by the ends of names."""
    if isinstance(targets, str):
        return () if targets == "all-linear" else fullmatching(targets, names)
    return [name for name in names for target in targets or () if name == target or name.endswith(f".{target}")]
