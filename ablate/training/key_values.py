"""Keys and values of the tokens read so far, written in place: transformers' own joins them anew at every token."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ablate.training.forward_memory import room_of

# B rows, H heads, T tokens, E width of a head


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Of one layer, all tokens, in the model's dtype; a sliding window is the mask's affair."""

    def __init__(self) -> None:
        super().__init__()
        self._num = 0
        self._held: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Adds tokens (B x H x T x E). -> all keys and values."""
        begin, self._num = self._num, self._num + key_states.shape[2]
        if self._held is None or self._held[0].shape[2] < self._num:
            self._held = (self._grown(0, key_states, begin), self._grown(1, value_states, begin))
            self.is_initialized = True
        held_keys, held_values = self._held
        held_keys[:, :, begin : self._num] = key_states
        held_values[:, :, begin : self._num] = value_states
        self.keys, self.values = held_keys[:, :, : self._num], held_values[:, :, : self._num]
        return self.keys, self.values

    def _grown(self, which: int, added: Tensor, begin: int) -> Tensor:
        num, heads, _, width = added.shape
        larger = added.new_empty(num, heads, room_of(self._num), width)
        if self._held is not None:
            larger[:, :, :begin] = self._held[which][:, :, :begin]
        return larger

    def shift(self, places_B1: Tensor) -> None:
        """Moves the tokens of each row so far to the right, those beyond the end to the beginning."""
        if self._held is not None:
            places_BT = (torch.arange(self._num, device=places_B1.device) - places_B1) % self._num
            for held in self._held:
                indices = places_BT[:, None, :, None].expand_as(held[:, :, : self._num])
                held[:, :, : self._num] = held[:, :, : self._num].gather(2, indices)

    def get_seq_length(self) -> int:
        return self._num

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps some rows."""
        if self._held is not None:
            keys, values = self._held
            self._held = (keys[indices], values[indices])


class KeysAndValues(Cache):  # type: ignore[misc]
    """Of all layers."""

    layers: list[GrowingLayer]

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[GrowingLayer() for _ in range(num_layers)])

    def shift(self, places_B1: Tensor) -> None:
        for layer in self.layers:
            layer.shift(places_B1)


def bytes_a_token(config: Any, dtype: torch.dtype) -> int:
    """-> of keys and values of one token in all layers, as far as a model's config tells: without attention 0."""
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if not heads:
        return 0
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * dtype.itemsize)
