"""A training of a model larger than a card: each rank keeps a part of every frozen layer, and gathers one at a time.

By torch's FSDP2 (`fully_shard`): a layer's weights come together for its forward and its backward pass, and go after.
What is trained (float32 adapters), the embedding and the head are whole on every rank, so that checkpoints and results
are those of one process. A forward pass is all ranks' together: each must do as many.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ablate.core.errors import StageError
from ablate.training.lora_linear import LoraLinear
from ablate.training.ranks import Ranks


def shard(model: Any, device: str, ranks: Ranks) -> None:
    """Leaves a part of every decoder layer's frozen weights with each rank, all else whole, on `device`.

    Raises StageError where the model has no layers to share, or trains their weights whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # a second's import, which few stages need

    layers = list(_layers(model))
    whole = _kept_whole(model, layers)
    for tensor in (*whole, *model.buffers()):
        tensor.data = tensor.data.to(device)
    mesh = init_device_mesh(device, (ranks.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    runner = _runner(model, layers)
    named_as = type(runner)
    fully_shard(runner, mesh=mesh, ignored_params=whole)
    # by that name transformers knows a class, which is another now, to say what its layers gave
    type(runner).__module__, type(runner).__qualname__ = named_as.__module__, named_as.__qualname__
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.may_be_one_matrix = False  # which would be a copy of the whole
    ranks.is_in_step = True


def _layers(model: Any) -> Iterator[nn.Module]:
    """-> what transformers itself takes for a unit that no device map may split."""
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers or model.base_model is model:
        raise StageError(f"{type(model).__name__} has no layers by which several cards could share its weights")
    yield from layers


def _runner(model: nn.Module, layers: list[nn.Module]) -> nn.Module:
    """-> the innermost module that runs them all: OPT's head asks the decoder, past the body around it."""
    known = set(layers)
    around = (module for module in model.modules() if known <= {*module.modules()} - {module})
    return [module for module in around if not isinstance(module, nn.ModuleList)][-1]


def _kept_whole(model: Any, layers: list[nn.Module]) -> set[nn.Parameter]:
    shared = {weight for layer in layers for weight in layer.parameters() if not weight.requires_grad}
    if not shared:
        raise StageError(
            "every weight of a model is trained that is larger than a card: only adapters can be, of a model whose"
            " cards share it; set lora, or use cards with more memory"
        )
    return set(model.parameters()) - shared
