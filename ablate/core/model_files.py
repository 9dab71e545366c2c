"""A model's files: which there are, which of them its weights are loaded from, and whether it is an adapter alone."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.tiktoken",
    "*.jinja", "chat_template*",
)  # fmt: skip
BESIDE_WEIGHTS = "generation_config.json"
"""With the tokenizer's a file that goes along as it is where a model's weights are written anew."""
OTHER_FORMATS = {".gguf": "llama.cpp's GGUF", ".h5": "TensorFlow's", ".msgpack": "Flax's", ".onnx": "ONNX"}


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
        return ADAPTER_CONFIG in self.names and not any(is_full_weights(name) for name in self.names)

    @property
    def has_stray_adapter(self) -> bool:
        """Whether an adapter lies beside full weights."""
        return not self.is_adapter and any(name in self.names for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))

    @property
    def weights(self) -> tuple[str, ...]:
        """The files that weights are loaded from: transformers takes one file before an index."""
        if self.is_adapter:
            return (ADAPTER_WEIGHTS,)
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


def beside_weights(folder: Path, tokenizer: Path, *more: str) -> Iterator[Path]:
    """-> the files that go along with other weights of a model's folder: by their names, or `more` patterns.

    The tokenizer's are of its own folder alone: a base's chat template is not its adapter's.
    """
    for place, patterns in ((folder, (BESIDE_WEIGHTS, *more)), (tokenizer, TOKENIZER_FILES)):
        paths = sorted(path for path in place.iterdir() if path.is_file())
        yield from (path for path in paths if any(fnmatch(path.name, one) for one in patterns))


def is_full_weights(name: str) -> bool:
    """Whether a file of this name may hold a whole model, in whatever format."""
    is_other = name.startswith(("adapter_", "training_args", "optimizer", "scheduler", "scaler", "rng_state"))
    return not is_other and name.endswith((".safetensors", ".safetensors.index.json", *PICKLES, *OTHER_FORMATS))
