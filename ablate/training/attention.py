"""Attention of rows that stand one after the other, without padding or a mask: no token sees one of another row."""

import contextlib
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from ablate.training.products import is_card, is_narrow

varlen_attn: Any = None
"""None: of an earlier torch, with which rows are padded on a card; one without windows is tried in vain."""
with contextlib.suppress(ImportError):
    from torch.nn.attention.varlen import varlen_attn

# B rows, N tokens of all of them, H heads, K of keys and values, D width of a head

NAME = "ablate_rows"
CHANGES_SCORES = ("softcap", "s_aux", "position_bias", "head_mask", "alibi")
"""Arguments of some families' attention that neither kernel takes."""
KINDS = {"full_attention", "sliding_attention"}
"""Layers in which a token sees those before it, or the nearest of them, and nothing else carries over."""


class Packing(NamedTuple):
    """How the rows of a micro-batch stand in 1 x N tokens."""

    lengths: tuple[int, ...]
    places_1N: Tensor
    """Of each token in its row: 0 the first."""
    offsets: Tensor
    """Where each row begins, and the end of the last: B + 1 of int32."""

    def inputs(self, windows: deque[int | None] | None = None) -> dict[str, Any]:
        """-> what a model hands on to its attention. `windows`: hears how far back each layer sees.

        Arguments, and not a state beside them, so that a layer that is run again on the way back sees the same rows.
        A mask of four dimensions is taken for one that is ready: none is made, and no value is asked of the device.
        """
        return {
            "position_ids": self.places_1N,
            "attention_mask": self.offsets.view(1, 1, 1, -1),
            "cu_seq_lens_q": self.offsets,
            "row_lengths": self.lengths,
            "row_windows": windows,
        }


def _attend(
    module: Any,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: tuple[int, ...] | None = None,
    row_windows: deque[int | None] | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """-> B x T x H x D. Raises ValueError for packed rows whose attention is not that of either kernel."""
    if row_lengths is None:
        return _in_float32(module, query_BHTD, key_BKTD, value_BKTD, attention_mask, **settings)
    _require_plain(module, settings)
    window = settings.pop("sliding_window", None)
    if row_windows is not None:
        row_windows.append(window)
    if window is not None and window >= max(row_lengths):
        window = None
    if is_card(query_BHTD):
        assert cu_seq_lens_q is not None
        scale = settings.get("scaling")
        return _by_varlen(query_BHTD, key_BKTD, value_BKTD, cu_seq_lens_q, max(row_lengths), scale, window), None
    return _row_by_row(module, query_BHTD, key_BKTD, value_BKTD, row_lengths, window, **settings), None


def _in_float32(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """On a CPU the kernel of 16 bits is three times slower than that of float32, and less exact."""
    if attention_mask is not None and attention_mask.dtype in (torch.int32, torch.int64):
        raise ValueError("the rows' lengths have not come to the attention")
    if is_card(query) or not is_narrow(query):
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return output, None
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **settings)
    return output.to(query.dtype), None


def _require_plain(module: Any, settings: dict[str, Any]) -> None:
    changing = [name for name in CHANGES_SCORES if settings.get(name) is not None]
    is_causal = settings.get("is_causal")
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if changing or settings.get("dropout") or not is_causal:
        raise ValueError(f"packed rows: {', '.join(changing) or 'dropout, or a token that sees later ones'}")


def _by_varlen(
    query_1HND: Tensor,
    key_1KND: Tensor,
    value_1KND: Tensor,
    offsets: Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """-> 1 x N x H x D: one kernel for all rows."""
    if varlen_attn is None or not is_narrow(query_1HND):
        raise ValueError(f"packed rows: no kernel of torch {torch.__version__} on a card takes {query_1HND.dtype}")
    query_NHD, key_NKD, value_NKD = (x[0].transpose(0, 1) for x in (query_1HND, key_1KND, value_1KND))
    output = varlen_attn(
        query_NHD,
        key_NKD,
        value_NKD,
        offsets,
        offsets,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query_NHD.shape[1] != key_NKD.shape[1],
    )
    assert isinstance(output, Tensor)
    return output.unsqueeze(0)


def _row_by_row(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    window: int | None,
    **settings: Any,
) -> Tensor:
    """-> 1 x N x H x D: each row by itself, as it is attended to alone."""
    dtype = query.dtype
    if is_narrow(query):
        query, key, value = query.float(), key.float(), value.float()
    rows = zip(*(torch.split(x, [*lengths], 2) for x in (query, key, value)), strict=True)
    outputs = [sdpa_attention_forward(module, *row, _band(row[0], window), **settings)[0] for row in rows]
    return torch.cat(outputs, 1).to(dtype)


def _band(query_1HTD: Tensor, window: int | None) -> Tensor | None:
    """-> 1 x 1 x T x T: what a token sees of its row; None where that is all before it."""
    length = query_1HTD.shape[2]
    if window is None or window >= length:
        return None
    seen_TT = torch.ones(length, length, dtype=torch.bool, device=query_1HTD.device).tril_().triu_(1 - window)
    return seen_TT[None, None]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def take_over(model: Any) -> None:
    """Has a model attend by the function of this module, where it would use torch's own and can be given another."""
    config = model.config.get_text_config()
    is_open = getattr(model, "_supports_attention_backend", False)
    if is_open and getattr(config, "_attn_implementation", None) == "sdpa":
        config._attn_implementation = NAME


def may_pack(model: Any) -> bool:
    """Whether rows may stand one after the other, by a model's configuration: what is small, no comparison tells.

    Each row's attention is its own; no other state may be carried from token to token.
    """
    config = model.config.get_text_config()
    if getattr(config, "_attn_implementation", None) != NAME or getattr(model, "_is_stateful", False):
        return False
    if getattr(config, "alibi", False) or getattr(config, "attention_chunk_size", None):
        return False
    return set(getattr(config, "layer_types", None) or ()) <= KINDS


def expected_windows(config: Any) -> list[int | None]:
    """-> how many tokens back each layer sees by the configuration; None: all."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]
