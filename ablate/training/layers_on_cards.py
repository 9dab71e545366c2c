"""What several cards share of a model that is larger than one of them: bytes of its layers, without torch.

As `sharding` and `layer_placement` do it: embedding, head and all that is trained are whole on each card of a training,
and so are weights of few bits, which are no parameters.
"""

from collections.abc import Iterable, Sequence

from ablate.store.sizes import ModelSizes
from ablate.study.quantize import BYTES_A_WEIGHT
from ablate.study.training_recipes import Lora
from ablate.training.layer_shapes import is_within, linear_modules, saved_modules


def parts_of_layers(
    student: ModelSizes, teachers: Sequence[ModelSizes], lora: Lora | None, width: int
) -> tuple[int, ...]:
    """-> bytes of each layer, of all models, of which a rank of a training keeps a part.

    None where it has no adapters, or a model no layers: then several cards cannot share its weights.
    """
    if lora is None:
        return ()
    whole = [saved_modules(student, lora), *(() for _ in teachers)]
    by_model = [_counts(model, names) for model, names in zip((student, *teachers), whole, strict=True)]
    return tuple(plain * width for counts in by_model for _, plain in counts) if all(by_model) else ()


def whole_layers(model: ModelSizes, width: int) -> tuple[int, ...]:
    """-> bytes of each layer as a stage keeps it."""
    few = BYTES_A_WEIGHT[model.quantize] if model.quantize else 0.0
    return tuple(int(quantized * few) + plain * width for quantized, plain in _counts(model, ()))


def _counts(model: ModelSizes, left_out: Iterable[str]) -> list[tuple[int, int]]:
    """-> for each layer its weights of few bits, and the others."""
    left_out = tuple(left_out)
    few = {f"{module.name}.weight" for module in linear_modules(model)} if model.quantize else set()
    by_layer: dict[str, tuple[int, int]] = {}
    for tensor in model.tensors:
        if tensor.layer is not None and not is_within(tensor.name, left_out):
            quantized, plain = by_layer.get(tensor.layer, (0, 0))
            is_quantized = tensor.name in few
            sizes = (quantized + tensor.size, plain) if is_quantized else (quantized, plain + tensor.size)
            by_layer[tensor.layer] = sizes
    return list(by_layer.values())
