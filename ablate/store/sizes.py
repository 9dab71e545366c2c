"""Sizes of models and rows that are here already, read from their own files without loading them."""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, plain_files
from ablate.store.fetched import model_path
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.store.store import Store


class ModelSizes(NamedTuple):
    """Sizes read from a model's folder."""

    num_params: int
    hidden: int
    vocab: int
    is_tied: bool
    is_capped: bool = False
    """Its logits are soft-capped."""
    layers: int = 0
    inner: int = 0
    """Width inside its MLPs."""
    kv_width: int = 0
    """Of the keys of all heads of a layer."""
    query_width: int = 0
    """Of the queries of all heads of a layer."""
    heads: int = 0
    is_eager: bool = False
    """Its attention is soft-capped, so that the scores of all pairs of tokens are held."""
    is_turned: bool = False
    """Its linear weights are width in x width out (Conv1D)."""
    activation: str = ""
    experts_a_token: int = 0
    """To how many of a layer's experts each token is sent; 0: there are none."""
    tensors: tuple["TensorShape", ...] = ()
    quantize: str | None = None
    """How a stage keeps its linear weights in few bits."""

    @property
    def num_head(self) -> int:
        return self.hidden * self.vocab

    @property
    def num_body(self) -> int:
        """Weights that every token is multiplied with, the head left out."""
        return self.num_params - self.num_head * (1 if self.is_tied else 2)


class TensorShape(NamedTuple):
    """A weight of a model."""

    name: str
    """As its files have it."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def layer(self) -> str | None:
        """What precedes the number of its layer, and the number: model.layers.0; None outside the layers."""
        in_layer = _IN_LAYER.match(self.name)
        return in_layer[0] if in_layer else None


_IN_LAYER = re.compile(r"(?:.*?\.)?\d+(?=\.)")


class RowsSizes(NamedTuple):
    """Counts of the rows that are trained on; those held out beside."""

    rows: int
    tokens: int
    loss_tokens: int
    holdout_loss_tokens: int


def fetched_sizes(store: Store, fetch: Stage, quantize: str | None = None) -> ModelSizes | None:
    """-> sizes of a model that was fetched (of an adapter's base) or cut, None where it is not here."""
    if "base" in fetch.inputs:
        return fetched_sizes(store, fetch.inputs["base"], quantize)
    path = model_path(store.folder(fetch))
    sizes: ModelSizes | None = model_sizes(path) if path else store.foreseen.get(fetch.key)
    return sizes._replace(quantize=quantize) if sizes else None


def rows_sizes(store: Store, rows: Stage) -> RowsSizes | None:
    """-> counts of a rows stage, None where it is not made."""
    summary = read_sound(store.folder(rows), "out/summary.json")
    if not summary:
        return store.foreseen.get(rows.key)
    train = summary["train"]
    return RowsSizes(train["rows"], train["tokens"], train["loss_tokens"], summary["holdout"]["loss_tokens"])


def num_rows(store: Store, rows: Stage, before: Mapping[str, int]) -> int | None:
    """-> how many rows a rows stage made to be trained on; `before`: of those that are gone, by key, where known."""
    sizes = rows_sizes(store, rows)
    return sizes.rows if sizes else before.get(rows.key)


@cache
def model_sizes(folder: Path) -> ModelSizes | None:
    """-> sizes from config.json and the headers of the safetensors files; None where they cannot be read."""
    config = disk.read_json(folder / "config.json")
    if not isinstance(config, dict):
        return None
    tensors = [tensor for path in sorted(folder.glob("*.safetensors")) for tensor in _tensors_in(path)]
    return sizes_of(config, tensors)


def sizes_of(config: dict[str, Any], tensors: Sequence[TensorShape]) -> ModelSizes | None:
    """-> sizes from a model's configuration and its weights; None where it says no width."""
    config = config.get("text_config") or config
    hidden, vocab = config.get("hidden_size", config.get("n_embd")), config.get("vocab_size")
    if not hidden or not vocab:
        return None
    inside = _inside(config, int(hidden))
    return ModelSizes(
        num_params=sum(tensor.size for tensor in tensors),
        hidden=int(hidden),
        vocab=int(vocab),
        is_tied=bool(config.get("tie_word_embeddings", True)),
        is_capped=config.get("final_logit_softcapping") is not None,
        is_eager=config.get("attn_logit_softcapping") is not None,
        is_turned=config.get("model_type") in _TURNED,
        activation=str(config.get("hidden_act", config.get("activation_function")) or ""),
        experts_a_token=int(config.get("num_experts_per_tok") or 0),
        tensors=tuple(tensors),
        quantize=None,
        **inside,
    )


_TURNED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Families whose linear modules are transformers' Conv1D."""


def _inside(config: dict[str, Any], hidden: int) -> dict[str, int]:
    """-> what is within layers; what is not said is as in a plain transformer."""
    heads = config.get("num_attention_heads", config.get("n_head")) or 1
    kv_heads, head = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    return {
        "layers": int(config.get("num_hidden_layers", config.get("n_layer")) or 0),
        "inner": int(config.get("intermediate_size", config.get("n_inner")) or 4 * hidden),
        "kv_width": int(kv_heads * head),
        "query_width": int(heads * head),
        "heads": int(heads),
    }


def _tensors_in(path: Path) -> list[TensorShape]:
    with plain_files.opened(path, follows=True) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return [TensorShape(name, tuple(entry["shape"])) for name, entry in header.items() if name != "__metadata__"]
