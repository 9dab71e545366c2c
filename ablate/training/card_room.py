"""How much of a card a process may fill, and how many tokens a micro-batch has by that."""

from collections.abc import Callable
from typing import Any

import torch

from ablate.store.memory import Memory
from ablate.store.sizes import ModelSizes, TensorShape, sizes_of
from ablate.study.field_types import Dtype
from ablate.training.forward_memory import ForwardMemory
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


def asked_memory(parts: ModelParts, asked: str, output_bytes: int = 0) -> ForwardMemory | None:
    """-> what a loaded model holds that is only asked; None where its sizes are not known."""
    sizes = model_sizes(parts.model)
    return ForwardMemory(sizes, dtype_of(parts.model), asked, output_bytes=output_bytes) if sizes else None


def dtype_of(model: Any) -> Dtype:
    """-> of a model's weights."""
    name: Dtype = str(next(model.parameters()).dtype).removeprefix("torch.")  # type: ignore[assignment]
    return name


def forward_budget(device: str, row: int, needed: Callable[[int], Memory] | None, on_cpu: int) -> int:
    """-> tokens a micro-batch of a model that is only asked, one row at least; halved when memory runs out.

    `needed`: by so many tokens; None where it is not known. `on_cpu`: tokens there, and where it is not known.
    """
    room = card_room(device)
    if room is None or needed is None:
        return on_cpu
    loaded = torch.cuda.memory_allocated()
    return most_tokens(lambda tokens: loaded + needed(tokens).beside_weights, room, row)


_OF_ADAPTERS = (".lora_A", ".lora_B", ".magnitude")


def model_sizes(model: Any) -> ModelSizes | None:
    """-> the sizes of a loaded model, an adapter's own weights left out."""
    named = [*shapes_of(model).items()]
    named += [(f"{name}.weight", module.shape) for name, module in quantized_modules(model)]
    own = [(name, shape) for name, shape in named if not name.endswith(_OF_ADAPTERS)]
    shapes = [TensorShape(name.replace(".base.", "."), shape) for name, shape in own]
    sizes = sizes_of(model.config.to_dict(), shapes)
    return sizes._replace(quantize=form_of(model)) if sizes else None
