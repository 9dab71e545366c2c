"""Tensors on disk."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ablate.core import disk


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, which counts once its folder is committed."""
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    disk.write_with(path, num_bytes, lambda path: save_file(dict(tensors), path, metadata and dict(metadata)))
