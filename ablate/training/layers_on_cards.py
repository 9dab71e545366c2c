"""What the ranks of a training share of models that are larger than a card: bytes of their layers, without torch.

As `sharding` does it: embedding, head and all that is trained are whole on each rank, and so are weights of few bits,
which are no parameters.
"""

from collections.abc import Sequence

from ablate.store.sizes import ModelSizes
from ablate.study.training_recipes import Lora
from ablate.training.layer_shapes import is_within, linear_modules, saved_modules


def parts_of_layers(
    student: ModelSizes, teachers: Sequence[ModelSizes], lora: Lora | None, width: int
) -> tuple[int, ...]:
    """-> bytes of each layer, of all models, of which a rank keeps a part.

    None where there are no adapters, or a model has no layers: then several cards cannot share its weights.
    """
    if lora is None:
        return ()
    whole = [saved_modules(student, lora), *(() for _ in teachers)]
    by_model = [_frozen_parameters(*one) for one in zip((student, *teachers), whole, strict=True)]
    return tuple(num * width for nums in by_model for num in nums) if all(by_model) else ()


def _frozen_parameters(model: ModelSizes, trained: Sequence[str]) -> list[int]:
    """-> numbers in each layer."""
    few = {f"{module.name}.weight" for module in linear_modules(model)} if model.quantize else set()
    by_layer: dict[str, int] = {}
    for tensor in model.tensors:
        if tensor.layer is not None:
            is_left_out = tensor.name in few or is_within(tensor.name, trained)
            by_layer[tensor.layer] = by_layer.get(tensor.layer, 0) + (0 if is_left_out else tensor.size)
    return list(by_layer.values())
