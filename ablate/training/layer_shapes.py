"""A model's layers as the shapes of its weights show them: linear modules by what they read, norms, what is trained."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from ablate.core.patterns import PatternError
from ablate.store.sizes import ModelSizes, TensorShape
from ablate.study.module_names import named_by, saved_by
from ablate.study.training_recipes import Lora

EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in", "word_embeddings", "embed_positions", "position_embeddings")
HEADS = ("lm_head", "embed_out", "output")
_PREFIXES = ("", "model.", "transformer.", "gpt_neox.")
"""What a model puts before names of its checkpoint that lack it."""
_OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj", "wo", "down_proj", "fc2", "dense_4h_to_h", "w2", "fc_out")
"""Linear modules that end an attention or an MLP; the others read what these are given."""
_GATED = ("gate_proj", "gate_up_proj", "w1")
_EXPERT = re.compile(r"\.experts\.\d+\.")
"""In the name of a weight of one expert, in a checkpoint: loaded, those of all experts are one tensor."""


class Linear(NamedTuple):
    """A linear module."""

    name: str
    width_out: int
    width_in: int

    @property
    def is_attention(self) -> bool:
        return any(word in self.name for word in ("attn", "attention"))

    @property
    def is_output(self) -> bool:
        return self.name.rpartition(".")[2] in _OUTPUTS


class Layer(NamedTuple):
    """A layer of a model."""

    num_weights: int
    by_input: Mapping[tuple[bool, bool], tuple[Linear, ...]]
    """Linear modules that read the same, by whether they are the attention's, and whether they end it or the MLP."""
    norms: tuple[int, ...]
    """Widths of its norms."""
    has_layer_norm: bool
    """Its norms have biases: they keep what they read, and no float32 copy of it."""
    is_gated: bool
    """Its MLP multiplies two of its products."""
    expert_width: int
    """Inside of each of its experts; 0: it has none."""

    def width_in(self, *, is_attention: bool) -> int:
        """-> of the module that ends the attention or the MLP; 0 where there is none."""
        return max((linear.width_in for linear in self.by_input.get((is_attention, True), ())), default=0)


@lru_cache(256)
def linear_modules(model: ModelSizes) -> tuple[Linear, ...]:
    """-> all that can carry an adapter, the head too where it has a weight of its own."""
    matrices = (tensor for tensor in model.tensors if len(tensor.shape) == 2 and tensor.name.endswith(".weight"))
    named = ((tensor.name.removesuffix(".weight"), tensor.shape) for tensor in matrices)
    return tuple(
        Linear(name, *(reversed(shape) if model.is_turned and not _is_last(name, HEADS) else shape))
        for name, shape in named
        if not (_is_last(name, EMBEDDINGS) or _EXPERT.search(name))
    )


@lru_cache(256)
def layers_of(model: ModelSizes) -> tuple[Layer, ...]:
    """-> the layers, in the order of the model's weights."""
    by_layer: dict[str, list[TensorShape]] = {}
    for tensor in model.tensors:
        if tensor.layer is not None:
            by_layer.setdefault(tensor.layer, []).append(tensor)
    linear = {module.name: module for module in linear_modules(model)}
    return tuple(_layer(tensors, linear, model.hidden) for tensors in by_layer.values())


def _layer(tensors: Iterable[TensorShape], linear: Mapping[str, Linear], hidden: int) -> Layer:
    tensors = tuple(tensors)
    by_input: dict[tuple[bool, bool], list[Linear]] = {}
    names = [tensor.name.removesuffix(".weight") for tensor in tensors]
    for module in (linear[name] for name in names if name in linear):
        by_input.setdefault((module.is_attention, module.is_output), []).append(module)
    norms = [tensor for tensor in tensors if len(tensor.shape) == 1 and tensor.name.endswith(".weight")]
    return Layer(
        num_weights=sum(tensor.size for tensor in tensors),
        by_input={key: tuple(modules) for key, modules in by_input.items()},
        norms=tuple(tensor.shape[0] for tensor in norms),
        has_layer_norm=any(tensor.name.replace(".weight", ".bias") in {t.name for t in tensors} for tensor in norms),
        is_gated=any(_is_last(name, _GATED) for name in names),
        expert_width=_expert_width(tensors, hidden),
    )


def _expert_width(tensors: Iterable[TensorShape], hidden: int) -> int:
    """-> by the smallest of their matrices: two may lie side by side."""
    of_experts = (one for one in tensors if len(one.shape) == 3 or (len(one.shape) == 2 and _EXPERT.search(one.name)))
    return min((math.prod(one.shape[-2:]) for one in of_experts), default=0) // hidden


@lru_cache(256)
def adapted(model: ModelSizes, lora: Lora) -> tuple[Linear, ...]:
    """-> the modules that get an adapter, as far as the names in the checkpoint are those of the model."""
    saved = saved_modules(model, lora)
    free = [module for module in linear_modules(model) if not is_within(module.name, saved)]
    if lora.is_all_linear:
        return tuple(module for module in free if not _is_last(module.name, HEADS))
    named = _named(lora.target_modules, [module.name for module in free])
    return tuple(module for module in free if module.name in named)


def saved_modules(model: ModelSizes, lora: Lora) -> tuple[str, ...]:
    """-> the modules that are trained whole."""
    modules = dict.fromkeys(name for tensor in model.tensors for name in _modules_above(tensor.name))
    return tuple(dict.fromkeys(name for item in lora.modules_to_save for name in saved_by(item, tuple(modules))))


def num_adapter_weights(modules: Iterable[Linear], lora: Lora) -> int:
    """-> of A, B, and where they are trained apart the norms."""
    rows = (lora.rank * (module.width_in + module.width_out) + lora.use_dora * module.width_out for module in modules)
    return sum(rows)


def num_saved_weights(model: ModelSizes, lora: Lora) -> int:
    saved = saved_modules(model, lora)
    return sum(tensor.size for tensor in model.tensors if is_within(tensor.name, saved))


def num_trained(model: ModelSizes, lora: Lora | None) -> int:
    """-> all weights that a training moves."""
    if lora is None:
        return model.num_params
    return num_adapter_weights(adapted(model, lora), lora) + num_saved_weights(model, lora)


def _named(items: Iterable[str], names: Iterable[str]) -> set[str]:
    loaded = {f"{prefix}{name}": name for name in names for prefix in _PREFIXES}
    known: set[str] = set()
    for item in items:
        try:
            known |= {loaded[name] for name in named_by(item, tuple(loaded))}
        except PatternError:  # told where the study is read
            continue
    return known


def _is_last(name: str, words: Iterable[str]) -> bool:
    return name.rpartition(".")[2] in words


def is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _modules_above(tensor: str) -> list[str]:
    """-> model.norm.weight: model.norm and model."""
    parts = tensor.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
