"""What file names, an index of shards and the headers of safetensors files say against a model's weights."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.core.model_files import (
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    OTHER_FORMATS,
    PICKLES,
    SINGLE,
    ModelFiles,
    is_full_weights,
)
from ablate.core.tensor_headers import FLOATS, BadTensorFileError, StoredTensor, stored_tensors

PREFIXES = {
    "_orig_mod.": "torch.compile's: save `model._orig_mod`",
    "module.": "DataParallel's or DeepSpeed's: save `model.module`",
    "_fsdp_wrapped_module.": "FSDP's: save a full state dict",
    "_checkpoint_wrapped_module.": "activation checkpointing's: save the module inside",
    "base_model.model.": "PEFT's: save `model.merge_and_unload()`",
}
"""What wrappers put before the names of a model's tensors, and how to be rid of it."""
ADAPTER_WORDS = (".lora_A.", ".lora_B.", ".base_layer.", ".modules_to_save.", ".lora_magnitude_vector.")
EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_tokens|wte|word_embeddings|embed_in)\.weight")
LAYER = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)\..*")
CONVERT = "load it once where its weights can be trusted, and `model.save_pretrained` writes safetensors"


def weight_faults(files: ModelFiles) -> Iterator[str]:
    """-> every reason why these weights cannot be loaded; of what is in them only where they are here."""
    if not files.weights:
        yield _no_weights(files)
        return
    if missing := [name for name in files.weights if name not in files.names]:
        verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        yield (
            f"{len(missing)} of the {len(files.weights)} files that {INDEX} names {verb} missing ({_few(missing)}):"
            f" fetch or copy {them} too"
        )
    elif files.folder:
        yield from _header_faults(files, files.folder)


def _no_weights(files: ModelFiles) -> str:
    names = sorted(name for name in files.names if "/" not in name)
    if INDEX in files.names:
        return f"its {INDEX} names no weights: it is torn"
    others = [name for name in names if name.endswith(".safetensors") and name != ADAPTER_WEIGHTS]
    if others:
        return (
            f"its weights ({_few(others)}) are neither called {SINGLE} nor listed in a {INDEX}, which transformers"
            " looks for: give the file that name, or copy the index too"
        )
    if pickles := [name for name in names if name.endswith(PICKLES) and is_full_weights(name)]:
        return (
            f"it has its weights only as {pickles[0]}, which can run code when read: convert it to safetensors"
            f" ({CONVERT}), or use a revision that has them"
        )
    if other := next((name for name in names if Path(name).suffix in OTHER_FORMATS), None):
        return f"it has its weights only in {OTHER_FORMATS[Path(other).suffix]} format ({other}): safetensors are read"
    return f"it has no weights (*.safetensors) among its {len(files.names)} files"


def _header_faults(files: ModelFiles, folder: Path) -> Iterator[str]:
    """-> what the headers say against the weights, and against the index."""
    places: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files.weights:
        tensors, torn = reading(folder, name)
        yield from torn
        if torn:
            return
        if twice := sorted(tensors.keys() & places.keys()):
            yield f"{name} and {places[twice[0]]} both hold {_few(twice)}"
        places |= dict.fromkeys(tensors, name)
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
        yield from _dtype_faults(name, tensors)
    if torn := list(_index_faults(files, places)):
        yield from torn
        return
    yield from _name_faults(places)
    config = files.json(CONFIG) if CONFIG in files.names else None
    if isinstance(config, dict) and not any(name.endswith("_config") for name in config):  # else of several parts
        yield from _size_faults(config, shapes)


def _name_faults(names: Collection[str]) -> Iterator[str]:
    """-> that a model was saved inside a wrapper; whatever else the names get wrong is told once it is loaded."""
    for prefix, whose in PREFIXES.items():
        if names and all(name.startswith(prefix) or f".{prefix}" in name for name in names):
            yield f"the names of all {len(names)} tensors have {prefix!r} in them: it is {whose}, or rename the tensors"
    if inside := [name for name in names if any(word in name for word in ADAPTER_WORDS)]:
        yield (
            f"its weights hold an adapter that is not merged ({_few(inside)}): merge it (PEFT's `merge_and_unload`) and"
            " save that"
        )


def _size_faults(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """-> where the weights are plainly of another size than config.json says."""
    rows = config.get("vocab_size")
    for name, shape in shapes.items():
        if EMBEDDING.fullmatch(name) and isinstance(rows, int) and shape[:1] != (rows,):
            yield f"{CONFIG} says vocab_size {rows}, and {name} has {shape[0] if shape else 1} rows: save both together"
    num = config.get("num_hidden_layers", config.get("n_layer"))
    layers = {int(layer[1]) for name in shapes if (layer := LAYER.fullmatch(name))}
    if isinstance(num, int) and layers and len(layers) < num:
        yield f"{CONFIG} says {num} layers, and its weights have {len(layers)}: a file is missing, or of another model"


def reading(folder: Path, name: str) -> tuple[dict[str, StoredTensor], list[str]]:
    """-> the tensors of a file; and why it cannot be read, where it cannot."""
    try:
        return stored_tensors(folder / name), []
    except BadTensorFileError as error:
        return {}, [f"{name} cannot be read: {error}; copy or fetch it again"]
    except OSError as error:
        return {}, [f"{name} cannot be read: {error.strerror}"]


def _dtype_faults(file: str, tensors: Mapping[str, StoredTensor]) -> Iterator[str]:
    """-> weights that are no floating-point numbers. Small masks and counters may be whole numbers."""
    odd = [name for name, tensor in tensors.items() if _is_odd(name, tensor)]
    if odd:
        dtypes = ", ".join(sorted({tensors[name].dtype for name in odd}))
        yield f"{file} holds {_few(odd)} as {dtypes}: quantised weights are not taken; name the model of 16 or 32 bits"


def _is_odd(name: str, tensor: StoredTensor) -> bool:
    is_narrow = tensor.dtype not in FLOATS and tensor.dtype.startswith("F")  # of 8 bits and fewer
    is_weight = name.endswith((".weight", ".qweight", ".qzeros", ".weight_packed", ".bias")) and len(tensor.shape) < 4
    return is_narrow or (is_weight and tensor.dtype not in FLOATS)


def _index_faults(files: ModelFiles, places: Mapping[str, str]) -> Iterator[str]:
    """-> where an index and its shards contradict each other."""
    if SINGLE in files.names:
        return
    weight_map = files.weight_map
    lacking = [name for name, file in weight_map.items() if places.get(name) != file]
    if lacking:
        file = weight_map[lacking[0]]
        yield f"{INDEX} places {_few(lacking)} in {file}, which does not hold them: one of the two is of another model"
        return
    unlisted = [name for name in places if name not in weight_map]
    if unlisted:
        file = places[unlisted[0]]
        yield f"{file} holds {_few(unlisted)}, which {INDEX} does not list: one of the two is of another model"


def _few(names: Collection[str], limit: int = 4) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
