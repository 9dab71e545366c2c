"""Why a checkpoint's tensors may not fit its model: a guess from names and shapes, in words that help."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from ablate.core.tensor_headers import StoredTensor
from ablate.core.weight_faults import ADAPTER_WORDS, PREFIXES

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
HEADS = ("lm_head", "embed_out", "output_projection")


def likely_reason(
    model: Any, stored: Mapping[str, StoredTensor], missing: Collection[str], unused: Collection[str], shapes: Shapes
) -> str:
    """-> one sentence, or two: what probably happened, and what to do."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if prefix := _prefix(wanted, stored, missing):
        of_whom = PREFIXES.get(prefix, "of a wrapper that the model was saved in")
        return (
            f"The names have {prefix!r} in them, without which all of them fit: it is {of_whom}, or rename the tensors"
        )
    if any(word in name for name in unused for word in ADAPTER_WORDS):
        return "The files hold an adapter inside the model: merge it (PEFT's `merge_and_unload`) and save that"
    return _of_shapes(shapes, model) or _of_names(wanted, missing, unused) or "Save the model and its config.json anew"


def _prefix(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], missing: Collection[str]) -> str:
    """-> what, taken out of every name that has it, gives the model all that it misses; empty for nothing."""
    first = next(iter(stored), "")
    parts = first.split(".")
    leading = [".".join(parts[:number]) + "." for number in range(1, len(parts))]
    for prefix in (*PREFIXES, *leading):
        without = {name.replace(prefix, "", 1): tensor.shape for name, tensor in stored.items() if prefix in name}
        if without and all(without.get(name) == wanted[name] for name in missing) and missing:
            return prefix
    return ""


def _of_shapes(shapes: Shapes, model: Any) -> str:
    rows = {there[0] for there, here in shapes.values() if len(there) == 2 and there[1:] == here[1:]}
    is_vocabulary = all(re.search(r"embed|wte|lm_head|head", name) for name in shapes)
    if shapes and is_vocabulary and len(rows) == 1:
        size = getattr(model.config.get_text_config(), "vocab_size", None)
        return (
            f"The vocabulary was resized: config.json says vocab_size {size}, the file has {rows.pop()} rows."
            " Save model and config.json together"
        )
    return "The config.json is of another size of this model, or a file of another one" if shapes else ""


def _of_names(wanted: Mapping[str, Any], missing: Collection[str], unused: Collection[str]) -> str:
    if missing and not unused and all(any(head in name for head in HEADS) for name in missing):
        return (
            "Its output head would be random: these weights were saved without it (from a body such as AutoModel"
            " gives), or config.json should say tie_word_embeddings: true"
        )
    if not (missing or unused):
        return ""
    layers = [_layer(name) for name in (*missing, *unused)]
    if layers and None not in layers and not (missing and unused):
        if unused:
            return "The files have more layers, or parts of them, than config.json says: it is of a smaller model"
        return "The files have fewer layers, or parts of them, than config.json says: a shard lacks, or another size"
    if len(missing) * 2 > len(wanted):
        return "The weights are of another architecture than config.json says"
    if missing and not unused:
        return "A file is missing, or was written by half: fetch or save it again"
    if unused and not missing:
        return "The weights are of a larger model than config.json says: a part of them would have been lost"
    return "A tensor was renamed: the file is of another version of the model than config.json"


def _layer(name: str) -> str | None:
    number = re.search(r"\.(\d+)\.", name)
    return number[1] if number else None
