"""Tensors on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ablate.core import disk
from ablate.core.tensor_headers import StoredTensor, header_of

PIECE_BYTES = 1 << 23
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, which counts once its folder is committed: its digest is known then.

    Tensors are brought from their device one by one.
    """
    header = header_of({name: _stored(tensor) for name, tensor in tensors.items()}, metadata)

    def pieces() -> Iterator[bytes | memoryview]:
        yield header.raw
        for name in header.names:
            yield from _pieces(tensors[name])

    disk.write_pieces(path, pieces(), header.num_bytes)


def _stored(tensor: Tensor) -> StoredTensor:
    return StoredTensor(DTYPES[tensor.dtype], tuple(tensor.shape))


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    for begin in range(0, len(raw), PIECE_BYTES):
        yield raw[begin : begin + PIECE_BYTES].numpy().data
