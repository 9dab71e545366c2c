"""What a layer of a model holds of a token: kept for the way back, and for a moment on either way; without torch."""

from ablate.store.sizes import ModelSizes
from ablate.study.training_recipes import Lora
from ablate.training.layer_shapes import Layer, Linear, layers_of


def wide_width(width: int) -> int:
    """-> bytes of a number in float32 or wider."""
    return max(4, width)


def is_merged(lora: Lora, width: int) -> bool:
    """Whether W + s B A is kept as one matrix; small ones of 16 bits, which are too, are left out."""
    return width >= 4 and not lora.dropout


def kept_in_layer(
    layer: Layer, model: ModelSizes, row: int, lora: Lora | None, names: frozenset[str], width: int
) -> int:
    """-> bytes that a layer keeps of a token for the way back. `names`: of the modules with an adapter."""
    norm = width if layer.has_layer_norm else wide_width(width)
    total = sum(layer.norms) * (norm + (width if lora is None else 0))
    for (is_attention, is_output), modules in layer.by_input.items():
        trained = modules if lora is None else [module for module in modules if module.name in names]
        is_shared = is_output and (is_attention or _keeps_result(layer, model))  # with what attention or MLP keep of it
        if trained and not is_shared:
            total += modules[0].width_in * width
        total += sum(_kept_by_adapter(module, lora, width) for module in trained if lora)
    total += _kept_by_experts(layer, model, width, is_trained=lora is None)
    return total + _kept_by_attention(layer, model, row, width) + _kept_by_mlp(layer, model, width)


def _kept_by_adapter(module: Linear, lora: Lora, width: int) -> int:
    """-> A x; with dropout what it keeps of x, where it is no longer shared; with DoRA what m/n is multiplied with."""
    low = 0 if is_merged(lora, width) else lora.rank * width
    dropped = module.width_in * (1 if width < 4 else 2 * width) if lora.dropout else 0
    scaled = module.width_out * width * (2 if lora.dropout else 1) if lora.use_dora else 0
    return low + dropped + scaled


def _kept_by_attention(layer: Layer, model: ModelSizes, row: int, width: int) -> int:
    """-> queries, keys, values, output and the log-sum-exp.

    Without a fused kernel all scores: capped, as probabilities in float32, and these in the model's dtype.
    """
    queries = layer.width_in(is_attention=True) or model.query_width
    if model.is_eager:
        return width * 4 * queries + model.heads * row * (4 + width * (2 if width < 4 else 1))
    return width * (2 * queries + 2 * model.kv_width) + 4 * model.heads


def _kept_by_mlp(layer: Layer, model: ModelSizes, width: int) -> int:
    """-> what the activation reads, and of a gated one both factors."""
    num = 3 if layer.is_gated else _UNFUSED.get(model.activation, 1)
    return layer.width_in(is_attention=False) * width * num


def _keeps_result(layer: Layer, model: ModelSizes) -> bool:
    """Whether an activation keeps what it gives, and not what it reads."""
    return model.activation == "relu" and not layer.is_gated


def _kept_by_experts(layer: Layer, model: ModelSizes, width: int, *, is_trained: bool) -> int:
    """-> of each that a token is sent to both factors and their product, what it gives, and of trained ones the input.

    As transformers multiplies the tokens of all experts in one product.
    """
    if not layer.expert_width:
        return 0
    return model.experts_a_token * width * (3 * layer.expert_width + model.hidden * (2 if is_trained else 1))


_UNFUSED = {"gelu_new": 4, "gelu_fast": 4}
"""Activations that transformers writes out, and how many tensors of theirs are kept."""


def on_the_way_back(model: ModelSizes, width: int) -> int:
    """-> bytes a token, at most, of gradients inside of a layer: of a norm in float32, or of the MLP."""
    return max(model.hidden * (5 * wide_width(width) + width), width * (2 * _inner(model) + model.hidden))


def _inner(model: ModelSizes) -> int:
    """-> numbers of a token inside of an MLP, or of all experts that it is sent to."""
    layers = layers_of(model)
    of_experts = (model.experts_a_token * layer.expert_width for layer in layers)
    return max((*(layer.width_in(is_attention=False) for layer in layers), *of_experts), default=model.inner)


def passing_forward(model: ModelSizes, width: int, row: int) -> int:
    """-> bytes a token, at most, inside of a layer without a way back: in the MLP, or among scores that are held."""
    layers = layers_of(model)
    is_gated = any(layer.is_gated or layer.expert_width for layer in layers)
    num = 3 if is_gated or not layers else _UNFUSED.get(model.activation, 2)
    scores = model.heads * row * (width + 8 if width < 4 else 2 * width) + 8 * model.hidden * width
    return max(width * (4 * model.hidden + num * _inner(model)), scores if model.is_eager else 0)
