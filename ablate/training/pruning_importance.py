"""Which neurons, heads and channels of a model matter most, by its weights alone: no row is read.

With w the weight of the RMSNorm before a matrix (what the matrix reads is scaled by it), W' = W diag(w):

- neuron i of an MLP, silu(gate_i x) (up_i x) down_i:   |gate'_i| |up'_i| |down_i|
- group G of heads that share a key and a value:         sqrt(sum_{h in G} |O_h V'_G|^2), in the Frobenius norm
- channel j between the layers:                          sqrt(sum |W_j.|^2) sqrt(sum |W'_.j|^2)

The first is the weight of the path through the neuron (Neyshabur et al. 2015, 1506.02617). The second is what a head
can add: its attention weights sum to 1, so queries and keys say from where, not how much (the OV circuit of Elhage et
al. 2021). The third sums first over all that writes to a channel (embedding, O, down), then over all that reads it (Q,
K, V, gate, up, the output head), of the layers that stay. A change of scale that leaves a model what it is (up_i
against down_i, V against O, a norm's weight against the matrix behind it) changes neither the first nor the second,
as it would sums of magnitudes (LLM-Pruner, Ma et al. 2023, 2305.11627). Minitron (2407.14679) takes mean activations
on 1,024 rows instead.

All is computed in float64; of two that are equal the first is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ablate.core.values import Json
from ablate.study.pruning import Cut

# V vocabulary, D channels, I neurons, G groups of heads, H heads of a group, K width of a head

READS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
WRITES = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Kept:
    """What stays, as rising numbers; nothing is said of what is not cut."""

    cut: Cut
    hidden: Tensor | None = None
    intermediate: Mapping[int, Tensor] = field(default_factory=dict)
    """By layer."""
    groups: Mapping[int, Tensor] = field(default_factory=dict)
    """By layer."""

    def index(self, axis: str, layer: int | None) -> Tensor | None:
        """-> which places along an axis stay; None: all."""
        if axis == "hidden":
            return self.hidden
        by_layer = {"intermediate": self.intermediate, "heads": self.groups, "kv_heads": self.groups}.get(axis, {})
        kept = by_layer.get(layer) if layer is not None else None
        if kept is None or axis == "intermediate":
            return kept
        width = self.cut.whole.head_dim * (self.cut.whole.group if axis == "heads" else 1)
        return (kept[:, None] * width + torch.arange(width)).flatten()

    @property
    def record(self) -> dict[str, Json]:
        """-> for pruning.json."""
        hidden: dict[str, Json] = {} if self.hidden is None else {"hidden": self.hidden.tolist()}
        groups: dict[str, Json] = {str(layer): kept.tolist() for layer, kept in self.groups.items()}
        return hidden | ({"kv_heads": groups} if groups else {})


def kept_parts(tensors: Mapping[str, Tensor], cut: Cut) -> Kept:
    """-> the parts that stay of every layer that does."""
    if not cut.is_wide:
        return Kept(cut)
    weights = _Weights(tensors)
    is_cut = {name: getattr(cut, name) < getattr(cut.whole, name) for name in ("hidden", "intermediate", "heads")}
    return Kept(
        cut,
        _top(channels(weights, cut.layers), cut.hidden) if is_cut["hidden"] else None,
        {layer: _top(neurons(weights, layer), cut.intermediate) for layer in cut.layers if is_cut["intermediate"]},
        {layer: _top(groups(weights, layer, cut), cut.kv_heads) for layer in cut.layers if is_cut["heads"]},
    )


def _top(importance: Tensor, num: int) -> Tensor:
    return importance.sort(descending=True, stable=True).indices[:num].sort().values


class _Weights:
    """A model's matrices in float64, whatever its checkpoint puts before their names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._prefix = "model." if any(name.startswith("model.") for name in tensors) else ""

    def top(self, name: str) -> Tensor | None:
        """-> of the embedding, the last norm or the output head; None where there is none."""
        name = name if name == "lm_head" else f"{self._prefix}{name}"
        return self._tensors[f"{name}.weight"].double() if f"{name}.weight" in self._tensors else None

    def of_layer(self, layer: int, name: str) -> Tensor:
        return self._tensors[f"{self._prefix}layers.{layer}.{name}.weight"].double()

    def read(self, layer: int, name: str) -> Tensor:
        """-> W': what the norm before a matrix scales is in it."""
        norm = "input_layernorm" if name.startswith("self_attn") else "post_attention_layernorm"
        return self.of_layer(layer, name) * self.of_layer(layer, norm)


def neurons(weights: _Weights, layer: int) -> Tensor:
    """-> importance of each neuron (I)."""
    gate_ID, up_ID = weights.read(layer, "mlp.gate_proj"), weights.read(layer, "mlp.up_proj")
    down_DI = weights.of_layer(layer, "mlp.down_proj")
    squares_I: Tensor = gate_ID.square().sum(1) * up_ID.square().sum(1) * down_DI.square().sum(0)
    return squares_I.sqrt()


def groups(weights: _Weights, layer: int, cut: Cut) -> Tensor:
    """-> importance of each group of heads (G): |O V|^2 is the trace of (O^T O)(V V^T), of matrices K x K."""
    num, group, width = cut.whole.kv_heads, cut.whole.group, cut.whole.head_dim
    value_GKD = weights.read(layer, "self_attn.v_proj").view(num, width, -1)
    out_DGHK = weights.of_layer(layer, "self_attn.o_proj").view(-1, num, group, width)
    values_GKK = value_GKD @ value_GKD.transpose(1, 2)
    outs_GKK = torch.einsum("dghk,dghl->gkl", out_DGHK, out_DGHK)
    return (values_GKK * outs_GKK).sum((1, 2)).clamp(min=0).sqrt()


def channels(weights: _Weights, layers: Sequence[int]) -> Tensor:
    """-> importance of each channel (D)."""
    embedding_VD, norm_D = weights.top("embed_tokens"), weights.top("norm")
    assert embedding_VD is not None
    assert norm_D is not None
    head_VD = weights.top("lm_head")
    writes_D = embedding_VD.square().sum(0)
    reads_D = ((embedding_VD if head_VD is None else head_VD) * norm_D).square().sum(0)
    for layer in layers:
        writes_D = writes_D + sum(weights.of_layer(layer, name).square().sum(1) for name in WRITES)
        reads_D = reads_D + sum(weights.read(layer, name).square().sum(0) for name in READS)
    return writes_D.sqrt() * reads_D.sqrt()
