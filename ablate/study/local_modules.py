"""Whether the modules that a recipe names are in a model's folder, by the headers of its files alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk
from ablate.core.model_files import CONFIG, files_of
from ablate.core.patterns import PatternError
from ablate.core.tensor_headers import BadTensorFileError, stored_tensors
from ablate.study.module_names import is_pattern, lacks_linear, lacks_module, named_by, saved_by, shares_weights
from ablate.study.training_recipes import Lora

_PREFIXES = ("model", "transformer", "gpt_neox")
"""What a model puts before names of its checkpoint that lack it: GPT-2's h.0.attn is transformer.h.0.attn."""
_EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in", "word_embeddings", "embed_positions", "position_embeddings")
"""Last names of modules whose weights have two dimensions and that are not linear."""
_HEADS = ("lm_head", "embed_out", "output")


class CheckpointNames(NamedTuple):
    """What the names in a checkpoint say of a model's modules."""

    linear: tuple[str, ...]
    """Modules with a weight of two dimensions, as the checkpoint calls them."""
    modules: tuple[str, ...]
    """All modules with weights, those around them too."""
    is_tied: bool
    """The head has no weight of its own."""
    is_renamed: bool
    """Modules may be called otherwise once loaded: of several experts, or of several sorts of input."""


def module_findings(lora: Lora, folder: Path, name: str | None = None) -> Iterator[tuple[str, str]]:
    """-> (field, what is wrong) for every module that a recipe names and the model in a folder lacks.

    `name`: of the model, where it is not the folder's.

    What cannot be known from the checkpoint is let pass: a training looks again, before its first step.
    """
    names = checkpoint_names(folder)
    if names is None:
        return
    if names.linear and not lora.is_all_linear:
        yield from (("target_modules", message) for message in _target_messages(lora, names, name or folder.name))
    for item in lora.modules_to_save if names.modules else ():
        if message := _saved_message(item, names, name or folder.name):
            yield "modules_to_save", message


def _target_messages(lora: Lora, names: CheckpointNames, model: str) -> Iterator[str]:
    missing = []
    for item in lora.target_modules:
        try:
            is_missing = not (named_by(item, _as_loaded(names.linear)) or _may_be_there(item, names))
        except PatternError as error:
            yield str(error)
            continue
        if names.is_tied and item in _HEADS and is_missing:
            yield f"{item!r} of the model ({model}) is its input embedding, so no adapter can be merged; leave it out"
        elif is_missing and is_pattern(item):
            yield lacks_linear(model, [item], names.linear)
        elif is_missing:
            missing.append(item)
    if missing:
        yield lacks_linear(model, missing, names.linear)


def _may_be_there(item: str, names: CheckpointNames) -> bool:
    """Whether an item may name a module that the checkpoint calls otherwise: the training tells."""
    ends = {name.rpartition(".")[2] for name in names.linear}
    return names.is_renamed and (is_pattern(item) or item.rpartition(".")[2] in ends)


def _saved_message(item: str, names: CheckpointNames, model: str) -> str | None:
    embedding = next((name for name in names.modules if name.rpartition(".")[2] in _EMBEDDINGS), None)
    if names.is_tied and embedding:
        pair = (embedding, "lm_head")
        if shared := [name for name in pair if saved_by(item, (name,))]:
            other = next(name for name in pair if name != shared[0])
            return f"in {model}, {shares_weights(shared[0], other)}"
    if saved_by(item, _as_loaded(names.modules)) or names.is_renamed:
        return None
    return lacks_module(model, item, names.modules)


def _as_loaded(names: tuple[str, ...]) -> tuple[str, ...]:
    """-> names of a checkpoint, and what they may be once loaded."""
    more = (f"{prefix}.{name}" for prefix in _PREFIXES for name in names if not name.startswith(f"{prefix}."))
    return (*names, *more)


def checkpoint_names(folder: Path) -> CheckpointNames | None:
    """-> None where there is no checkpoint whose headers can be read."""
    config = disk.read_json(folder / CONFIG)
    try:
        files = files_of(folder)
        tensors = [stored_tensors(folder / name) for name in files.weights]
    except (OSError, BadTensorFileError):
        return None
    if not isinstance(config, dict) or files.is_adapter or not tensors:
        return None
    shapes = {name: tensor.shape for part in tensors for name, tensor in part.items()}
    weights = {name.removesuffix(".weight"): len(shape) for name, shape in shapes.items() if name.endswith(".weight")}
    linear = tuple(n for n, dims in weights.items() if dims == 2 and n.rpartition(".")[2] not in _EMBEDDINGS)
    modules = dict.fromkeys(above for name in shapes for above in _modules_above(name))
    has_head = any(name.rpartition(".")[2] in _HEADS for name in weights)
    is_tied = bool(config.get("tie_word_embeddings", True)) and not has_head
    is_renamed = "experts" in ".".join(modules) or any("_config" in key for key in config)
    return CheckpointNames(linear, tuple(modules), is_tied, is_renamed or any(dims > 2 for dims in weights.values()))


def _modules_above(tensor: str) -> Iterator[str]:
    """-> model.layers.0.mlp.up_proj.weight: the modules that it is in, the innermost first."""
    name = tensor.rpartition(".")[0]
    while name:
        yield name
        name = name.rpartition(".")[0]
