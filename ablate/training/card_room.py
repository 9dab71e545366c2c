"""How much of a card a process may fill, and how many tokens a micro-batch has by that."""

from collections.abc import Callable
from typing import Any

import torch

from ablate.store.sizes import ModelSizes, TensorShape, sizes_of
from ablate.training import batches
from ablate.training.memory_estimate import ForwardMemory
from ablate.training.model_parts import ModelParts
from ablate.training.offload import shapes_of
from ablate.training.quantized import form_of, quantized_modules

MOST = 32_768
"""Tokens: beyond, nothing is gained."""
STEP = 256
SHARE = 0.9
"""Of the room: an allocator leaves gaps, and a micro-batch that is too large costs a step begun anew."""


def card_room(device: str) -> int | None:
    """-> bytes that this process may hold of its card, its own included; None on a CPU."""
    if torch.device(device).type == "cpu":
        return None
    free, total = torch.cuda.mem_get_info()
    ours = int(total * torch.cuda.get_per_process_memory_fraction())  # a stage may have a share of its card alone
    return int(SHARE * min(ours, free + torch.cuda.memory_reserved()))


def most_tokens(needed: Callable[[int], int], room: int, row: int) -> int:
    """-> tokens of the largest micro-batch that takes no more than the room, one row at least. `needed`: bytes."""
    sizes = range(row, max(row, MOST) + 1, STEP)
    fits = [size for size in sizes if needed(size) <= room]
    return max(fits, default=row)


def forward_budget(parts: ModelParts, device: str, row: int, peak_tensors: int = 2) -> int:
    """-> tokens a micro-batch of a model that is only asked; halved when memory runs out."""
    room, sizes = card_room(device), model_sizes(parts.model)
    if room is None or sizes is None:
        return batches.CPU_BUDGET
    dtype = str(next(parts.model.parameters()).dtype).removeprefix("torch.")
    memory = ForwardMemory(sizes, dtype, peak_tensors)
    loaded = torch.cuda.memory_allocated()
    return most_tokens(lambda tokens: loaded + memory.at(tokens, row).beside_weights, room, row)


_OF_ADAPTERS = (".lora_A", ".lora_B", ".magnitude")


def model_sizes(model: Any) -> ModelSizes | None:
    """-> the sizes of a loaded model, an adapter's own weights left out."""
    named = [*shapes_of(model).items()]
    named += [(f"{name}.weight", module.shape) for name, module in quantized_modules(model)]
    own = [(name, shape) for name, shape in named if not name.endswith(_OF_ADAPTERS)]
    shapes = [TensorShape(name.replace(".base.", "."), shape) for name, shape in own]
    sizes = sizes_of(model.config.to_dict(), shapes)
    return sizes._replace(quantize=form_of(model)) if sizes else None
