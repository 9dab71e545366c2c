"""Attention on a CPU in 16 bits, whose kernel is three times slower there than that of float32, and less exact."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

NAME = "ablate_float32"


def _in_float32(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **settings)
    return output.to(query.dtype), None


AttentionInterface.register(NAME, _in_float32)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def attend_in_float32(model: Any) -> None:
    """Gives a model of 16 bits on a CPU the faster kernel, where it would use torch's own."""
    config = model.config.get_text_config()
    is_narrow = model.dtype in (torch.bfloat16, torch.float16) and model.device.type == "cpu"
    is_open = getattr(model, "_supports_attention_backend", False)
    if is_narrow and is_open and getattr(config, "_attn_implementation", None) == "sdpa":
        config._attn_implementation = NAME
