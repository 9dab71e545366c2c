"""A frozen model larger than a card: its layers one after the other over several cards, by accelerate's hooks.

It is asked as a model on one card is: what goes in and comes out lies on the first of them, with embedding and head.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ablate.core.errors import StageError
from ablate.store.memory import cards_of_layers
from ablate.training.offload import weights_of


def place_layers(model: Any, devices: Sequence[str]) -> None:
    """Moves a model to its cards. Raises StageError where transformers names no layers of it."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module  # type: ignore[import-untyped]

    for name, device in places(model, devices).items():
        module, skipped = model.get_submodule(name), model._skip_keys_device_placement
        add_hook_to_module(module.to(device), AlignDevicesHook(execution_device=device, skip_keys=skipped))
    for whole in (model.base_model, model):  # the body is run without the head too
        add_hook_to_module(whole, AlignDevicesHook(execution_device=devices[0], io_same_device=True))


def places(model: Any, devices: Sequence[str]) -> dict[str, str]:
    """-> name of a module -> its device: layers in their order, each card as full as the others; the rest first."""
    layers = [(name, module) for name, module in model.named_modules() if _is_layer(model, module)]
    if not layers or model.base_model is model:
        raise StageError(f"{type(model).__name__} has no layers that could lie on several cards")
    sizes = [num_bytes(module) for _, module in layers]
    rest = num_bytes(model) - sum(sizes)
    numbers = cards_of_layers(rest, sizes, len(devices))
    placed = {name: devices[number] for (name, _), number in zip(layers, numbers, strict=True)}
    return _others(model, set(placed), devices[0]) | placed


def num_bytes(module: nn.Module) -> int:
    return sum(weight.nbytes for weight in weights_of(module))


def _is_layer(model: Any, module: nn.Module) -> bool:
    return type(module).__name__ in set(model._no_split_modules or ())


def _others(model: nn.Module, layers: set[str], device: str) -> dict[str, str]:
    """-> the modules beside the layers: those with weights or buffers of their own that lie in no layer."""
    return {
        name: device
        for name, module in model.named_modules()
        if name
        and not any(name == layer or name.startswith(f"{layer}.") for layer in layers)
        and (list(module.parameters(recurse=False)) or list(module.buffers(recurse=False)))
    }
