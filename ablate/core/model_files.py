"""Whether a model's files can be loaded, told by their names, their JSON and the headers of the weights alone."""

import importlib.util
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ablate.core.errors import did_you_mean
from ablate.core.tensor_headers import FLOATS, BadTensorFileError, StoredTensor, stored_tensors

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
OTHER_FORMATS = {".gguf": "llama.cpp's GGUF", ".h5": "TensorFlow's", ".msgpack": "Flax's", ".onnx": "ONNX"}
OTHER_HEADS = re.compile(r"For(Masked|Sequence|Token|QuestionAns|MultipleChoice|NextSentence|Image|Audio|CTC)")
"""In the name of an architecture: a head that predicts no next token."""
TOKENIZER = re.compile(r"(tokenizer.*|vocab.*|merges\.txt|spiece\.model|.*\.tiktoken|sentencepiece.*|spm\.model)")
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


@dataclass(frozen=True)
class ModelFiles:
    """A model's files, in a folder or in a repository that is not fetched yet."""

    names: frozenset[str]
    """Of all files, relative."""
    text: Callable[[str], str]
    """-> what a small file says."""
    folder: Path | None = None
    """Where the weights lie, if they are here."""

    def json(self, name: str) -> Any:
        """-> what a JSON file says; None where it is none."""
        try:
            return json.loads(self.text(name))
        except ValueError:
            return None

    @property
    def is_adapter(self) -> bool:
        """Whether this is an adapter alone, to be merged on a base."""
        return ADAPTER_CONFIG in self.names and not any(_is_full_weights(name) for name in self.names)

    @property
    def has_stray_adapter(self) -> bool:
        """Whether an adapter lies beside full weights."""
        return not self.is_adapter and any(name in self.names for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))

    @property
    def weights(self) -> tuple[str, ...]:
        """The files that weights are loaded from: transformers takes one file before an index."""
        if SINGLE in self.names:
            return (SINGLE,)
        return tuple(sorted(set(self.weight_map.values())))

    @property
    def weight_map(self) -> Mapping[str, str]:
        """Name of a tensor -> its file, as an index of shards says; empty without one."""
        index = self.json(INDEX) if INDEX in self.names else None
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        is_map = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
        return weight_map if is_map and weight_map else {}


def files_of(folder: Path) -> ModelFiles:
    """-> the files of a model's folder; what is below it (but for chat templates) does not count."""
    names = frozenset(path.name for path in folder.iterdir() if path.is_file())
    return ModelFiles(names, lambda name: (folder / name).read_text(encoding="utf-8", errors="replace"), folder)


def faults(files: ModelFiles, *, trust_remote_code: bool = False) -> Iterator[str]:
    """-> every reason why no causal language model can be loaded from these files, with what to do."""
    if files.is_adapter:
        yield from _adapter_faults(files)
        return
    config = files.json(CONFIG) if CONFIG in files.names else None
    if CONFIG not in files.names:
        yield f"there is no {CONFIG} in it: it is no transformers model"
    elif not isinstance(config, dict):
        yield f"its {CONFIG} is no JSON mapping: it is torn, or no transformers model"
    else:
        yield from _config_faults(config, files.names, trust_remote_code)
    yield from _weight_faults(files)
    if not any(TOKENIZER.fullmatch(name) for name in files.names):
        yield "it has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, ...): save the model's own beside it"


def _is_full_weights(name: str) -> bool:
    is_other = name.startswith(("adapter_", "training_args", "optimizer", "scheduler", "rng_state"))
    return not is_other and name.endswith((".safetensors", ".safetensors.index.json", *PICKLES, *OTHER_FORMATS))


def _adapter_faults(files: ModelFiles) -> Iterator[str]:
    if not isinstance(files.json(ADAPTER_CONFIG), dict):
        yield f"its {ADAPTER_CONFIG} is no JSON mapping"
    if ADAPTER_WEIGHTS not in files.names:
        pickled = [name for name in files.names if name.endswith(PICKLES)]
        as_what = f" (only {pickled[0]}, which can run code when read: save it anew with PEFT)" if pickled else ""
        yield f"it has an {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS}{as_what}"
    elif files.folder:
        yield from _reading(files.folder, ADAPTER_WEIGHTS)[1]


# config.json


def _config_faults(config: dict[str, Any], names: Collection[str], trust_remote_code: bool) -> Iterator[str]:
    yield from _quantised(config)
    if config.get("is_encoder_decoder"):
        yield f"it is an encoder-decoder ({_architecture(config)}): a causal language model is expected"
    elif OTHER_HEADS.search(_architecture(config)):
        yield f"it is a {_architecture(config)}, whose head predicts no next token: a causal language model is expected"
    else:
        yield from _code_faults(config, names, trust_remote_code)


def _quantised(config: dict[str, Any]) -> Iterator[str]:
    """-> that a checkpoint is quantised; fp8 and mxfp4 too: what is trained must be the weights themselves."""
    inner = config.get("text_config")
    settings = config.get("quantization_config") or config.get("compression_config")
    settings = settings or (inner.get("quantization_config") if isinstance(inner, dict) else None)
    if settings:
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        bits = settings.get("bits") if isinstance(settings, dict) else None
        how = f"{method or 'method unknown'}{f', {bits} bits' if bits else ''}"
        yield (
            f"its weights are quantised ({how}), and quantised weights are not taken: they need a library of their own"
            " and are no longer the model's. Name the repository that it was quantised from, or save it dequantised"
        )


def _code_faults(config: dict[str, Any], names: Collection[str], trust_remote_code: bool) -> Iterator[str]:
    kind, known = config.get("model_type"), causal_model_types()
    auto_map = config.get("auto_map")
    own = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, dict) else None
    if own and trust_remote_code:
        file = f"{str(own).rpartition('--')[2].partition('.')[0]}.py"
        if "--" not in str(own) and file not in names:
            yield f"its {CONFIG} names code ({own}), and there is no {file} in it"
    elif known and kind not in known:
        if own:
            yield (
                f"it brings Python of its own ({own}), as transformers does not know {kind!r}: read it, then say"
                " trust_remote_code: true beside model"
            )
        else:
            hint = did_you_mean(kind, known).partition(" Possible:")[0] if isinstance(kind, str) else ""
            given = f"model_type {kind!r} in its {CONFIG}" if kind else f"what its {CONFIG} says, without a model_type,"
            yield f"{given} is no causal language model of the transformers installed here.{hint}"


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else str(config.get("model_type"))


@cache
def causal_model_types() -> frozenset[str]:
    """-> the model types of transformers' causal language models, read from its source without importing it.

    Empty where the source is another than is known here: then nothing is told of a model type before it is loaded.
    """
    spec = importlib.util.find_spec("transformers")
    source = Path(spec.origin).parent / "models/auto/modeling_auto.py" if spec and spec.origin else None
    text = source.read_text(encoding="utf-8") if source and source.is_file() else ""
    block = re.search(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict\(\s*\[(.*?)^\s*\]\s*\)", text, re.M | re.S)
    return frozenset(re.findall(r"""\(\s*"([^"]+)",""", block[1])) if block else frozenset()


# weights


def _weight_faults(files: ModelFiles) -> Iterator[str]:
    if not files.weights:
        yield _no_weights(files)
        return
    if missing := [name for name in files.weights if name not in files.names]:
        yield (
            f"{len(missing)} of the {len(files.weights)} files that {INDEX} names are missing ({_few(missing)}):"
            " fetch or copy them too"
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
    if pickles := [name for name in names if name.endswith(PICKLES) and _is_full_weights(name)]:
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
        tensors, torn = _reading(folder, name)
        yield from torn
        if torn:
            return
        if twice := sorted(tensors.keys() & places.keys()):
            yield f"{name} and {places[twice[0]]} both hold {_few(twice)}"
        places |= dict.fromkeys(tensors, name)
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
        yield from _dtype_faults(name, tensors)
    yield from _index_faults(files, places)
    yield from _name_faults(places)
    config = files.json(CONFIG) if CONFIG in files.names else None
    if isinstance(config, dict) and not any(
        isinstance(value, dict) and key.endswith("_config") for key, value in config.items()
    ):
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


def _reading(folder: Path, name: str) -> tuple[dict[str, StoredTensor], list[str]]:
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
    is_narrow = tensor.dtype.startswith(("F8", "F4", "F6", "E8", "E4", "E5"))
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
    unlisted = [name for name in places if name not in weight_map]
    if unlisted:
        file = places[unlisted[0]]
        yield f"{file} holds {_few(unlisted)}, which {INDEX} does not list: one of the two is of another model"


def _few(names: Collection[str], limit: int = 4) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
