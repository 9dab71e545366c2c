"""Which modules of a model get an adapter, and which are trained whole beside them."""

from collections.abc import Iterable, Mapping

from torch import nn
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError
from ablate.core.patterns import PatternError
from ablate.study.module_names import lacks_linear, lacks_module, named_by, saved_by, shares_weights
from ablate.study.training_recipes import Lora
from ablate.training.lora_linear import linear_weight
from ablate.training.quantized import QuantizedLinear, refuse_quantized

LINEAR = (nn.Linear, Conv1D, QuantizedLinear)
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Of modules: the model takes them apart, so that none can stand in their place."""


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """-> every module that can carry an adapter, by its full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LINEAR)}


def out_in_shape(module: nn.Module) -> tuple[int, int]:
    """-> (width out, width in); Conv1D keeps its weight the other way round."""
    if isinstance(module, QuantizedLinear):
        return module.out_features, module.in_features
    first, second = linear_weight(module).shape
    return (int(second), int(first)) if isinstance(module, Conv1D) else (int(first), int(second))


def target_modules(model: nn.Module, lora: Lora) -> dict[str, nn.Module]:
    """-> the modules that get an adapter; none within one that is trained whole, as PEFT has it.

    Raises StageError when an item names no such module, or the output head is named and tied to the embedding.
    """
    linear = linear_modules(model)
    saved = modules_to_save(model, lora)
    free = {name: module for name, module in linear.items() if not is_within(name, saved)}
    if lora.is_all_linear:
        head = model.get_output_embeddings()  # type: ignore[operator]
        wanted = {name for name, module in free.items() if module is not head}
    else:
        wanted = {name for item in lora.target_modules for name in _named(model, item, free, linear)}
    if not wanted:
        raise StageError(f"lora.target_modules: {type(model).__name__} has no linear module for an adapter")
    targets = {name: module for name, module in linear.items() if name in wanted}
    _refuse_tied(model, targets)
    return targets


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module is one of others, or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _named(
    model: nn.Module, item: str, free: Mapping[str, nn.Module], linear: Mapping[str, nn.Module]
) -> tuple[str, ...]:
    try:
        named = named_by(item, tuple(free))
        is_saved = not named and named_by(item, tuple(linear))
    except PatternError as error:
        raise StageError(f"lora.target_modules: {error}") from error
    if named:
        return named
    if is_saved:
        raise StageError(f"lora.target_modules: all modules {item!r} are trained whole, by lora.modules_to_save")
    raise StageError(f"lora.target_modules: {lacks_linear(type(model).__name__, [item], tuple(linear))}")


def _refuse_tied(model: nn.Module, targets: Mapping[str, nn.Module]) -> None:
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    for name, module in targets.items():
        if not isinstance(module, QuantizedLinear) and module.weight is embedding.weight:
            raise StageError(
                f"lora.target_modules: {name!r} shares its weights with the input embedding of "
                f"{type(model).__name__}, so an adapter on it could not be merged; leave it out"
            )


def modules_to_save(model: nn.Module, lora: Lora) -> dict[str, nn.Module]:
    """-> the modules that are trained whole, by their full names, in the order of these.

    Raises StageError when an item names none, one that another contains, or one whose weights another shares.
    """
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    saved = sorted({name for item in lora.modules_to_save for name in _saved_by(model, item, tuple(modules))})
    for name in saved:
        if is_within(name, (other for other in saved if other != name)):
            raise StageError(f"lora.modules_to_save: {name!r} is inside another of its modules; name one of them")
        _require_savable(name, modules[name])
    refuse_shared(model, saved)
    return {name: modules[name] for name in saved}


def _saved_by(model: nn.Module, item: str, names: tuple[str, ...]) -> tuple[str, ...]:
    saved = saved_by(item, names)
    if not saved:
        raise StageError(f"lora.modules_to_save: {lacks_module(type(model).__name__, item, names)}")
    return saved


def _require_savable(name: str, module: nn.Module) -> None:
    if isinstance(module, CONTAINERS):
        raise StageError(f"lora.modules_to_save: {name!r} is a list of modules; name what is in it")
    refuse_quantized(module, f"lora.modules_to_save: {name!r}")
    if not list(module.parameters()):
        raise StageError(f"lora.modules_to_save: {name!r} ({type(module).__name__}) has no weights to train")


def refuse_shared(model: nn.Module, saved: Iterable[str], what: str = "lora.modules_to_save") -> None:
    """Raises StageError when a weight of one of the modules is another's too, as a tied head's."""
    saved = tuple(saved)
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in named.items():
        others = [other for other, value in named.items() if value is parameter and other != name]
        if others and is_within(name, saved):
            raise StageError(f"{what}: {shares_weights(name.rpartition('.')[0], others[0].rpartition('.')[0])}")
