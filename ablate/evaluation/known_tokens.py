"""The tokens of a task's texts, kept in a folder that all evaluations share, named by the texts and the tokenizer."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ablate.core import disk, plain_files

LIBRARIES = ("transformers", "tokenizers")


def tokenised(
    folder: Path | None, tokenizer: Any, texts: Sequence[str], settings: Mapping[str, Any]
) -> Sequence[Sequence[int]]:
    """-> the tokens of each text: those found in the folder, else the tokenizer's, which are kept for the next model.

    Nothing is kept without a folder, nor of a tokenizer that is not wholly described by its file. What was damaged on
    the disk is made anew.
    """
    described = _description(tokenizer) if folder else None
    if folder is None or described is None:
        return _tokenise(tokenizer, texts, settings)
    path = folder / f"{_file_name(described, texts, settings)}.safetensors"
    kept = _read(path, len(texts))
    if kept is not None:
        disk.touch(path)
        return kept
    tokens = _tokenise(tokenizer, texts, settings)
    _write(path, tokens)
    return tokens


def _tokenise(tokenizer: Any, texts: Sequence[str], settings: Mapping[str, Any]) -> Sequence[Sequence[int]]:
    ids: Sequence[Sequence[int]] = tokenizer(texts, **settings)["input_ids"]
    return ids


def _description(tokenizer: Any) -> str | None:
    """-> all that decides its tokens; None of Python code that is not transformers' own, or not known to be fast."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not type(tokenizer).__module__.startswith("transformers."):
        return None
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    is_split = getattr(tokenizer, "split_special_tokens", False)
    return json.dumps([versions, type(tokenizer).__name__, is_split, backend.to_str()])


def _file_name(described: str, texts: Sequence[str], settings: Mapping[str, Any]) -> str:
    hasher = hashlib.sha256(json.dumps([described, dict(settings)], sort_keys=True).encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        hasher.update(len(raw).to_bytes(8, "big") + raw)
    return hasher.hexdigest()[:24]


def _write(path: Path, tokens: Sequence[Sequence[int]]) -> None:
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ids = np.fromiter((token for text in tokens for token in text), np.int32, int(lengths.sum()))
    disk.make_folder(path.parent)
    disk.write(path, save({"ids": ids, "lengths": lengths}, {"sha256": _digest(ids, lengths)}))


def is_whole(path: Path) -> bool:
    """Whether a file of tokens holds what was written."""
    return _arrays(path) is not None


def _read(path: Path, num: int) -> list[list[int]] | None:
    arrays = _arrays(path)
    if arrays is None or len(arrays[1]) != num:
        return None
    ends = np.cumsum(arrays[1]).tolist()
    whole = arrays[0].tolist()
    return [whole[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _arrays(path: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    if not plain_files.is_file(path):  # what is opened there is waited for
        return None
    try:
        with safe_open(path, "np") as file:
            ids, lengths, noted = file.get_tensor("ids"), file.get_tensor("lengths"), file.metadata()["sha256"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return (ids, lengths) if _digest(ids, lengths) == noted else None


def _digest(ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> str:
    return hashlib.sha256(lengths.tobytes() + ids.tobytes()).hexdigest()
