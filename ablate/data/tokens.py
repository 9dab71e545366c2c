"""Token rows and their loss mask in one safetensors file, read as a memory map, named by their content."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.tensor_headers import StoredTensor, header_of
from ablate.data.masks import TokenRow


class Counts(NamedTuple):
    """What a set of rows amounts to."""

    rows: int
    tokens: int
    loss_tokens: int
    """Tokens whose prediction counts; the first of a row is never predicted."""
    without_loss: int
    """Rows none of whose tokens count."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of tokens laid end to end. Row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: NDArray[np.int32]
    loss_mask: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """-> (tokens, loss mask)."""
        begin, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[begin:end], self.loss_mask[begin:end]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @cached_property
    def num_loss(self) -> NDArray[np.int64]:
        """Loss-bearing tokens of each row: those after its first."""
        running = np.concatenate([[0], np.cumsum(self.loss_mask, dtype=np.int64)])
        begins_N = np.where(self.lengths > 0, self.offsets[:-1] + 1, self.offsets[:-1])
        num_N: NDArray[np.int64] = running[self.offsets[1:]] - running[begins_N]
        return num_N

    @property
    def counts(self) -> Counts:
        without_loss = int((self.num_loss == 0).sum())
        return Counts(len(self), len(self.tokens), int(self.num_loss.sum()), without_loss)

    def digest(self) -> str:
        """-> sha256 of tokens, mask and offsets."""
        hasher = hashlib.sha256()
        for array in (self.offsets, self.tokens, self.loss_mask):
            hasher.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return hasher.hexdigest()


def lay(rows: Iterable[TokenRow]) -> TokenRows:
    """Rows laid end to end."""
    rows = list(rows)
    lengths = [len(row.ids) for row in rows]
    return TokenRows(
        tokens=np.fromiter((token for row in rows for token in row.ids), np.int32, sum(lengths)),
        loss_mask=np.fromiter((counts for row in rows for counts in row.loss_mask), np.uint8, sum(lengths)),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
    )


def save(rows: TokenRows, path: Path) -> None:
    arrays: dict[str, tuple[NDArray[Any], str]] = {
        "tokens": (rows.tokens, "I32"),
        "loss_mask": (rows.loss_mask, "U8"),
        "offsets": (rows.offsets, "I64"),
    }
    header = header_of({name: StoredTensor(dtype, array.shape) for name, (array, dtype) in arrays.items()})
    numbers = (np.ascontiguousarray(arrays[name][0]).view(np.uint8).data for name in header.names)
    disk.write_pieces(path, itertools.chain([header.raw], numbers), header.num_bytes)


def load(path: Path) -> TokenRows:
    """-> the rows of a file, as a memory map. Raises StageError when it is not one, or its parts do not fit."""
    try:
        arrays = mapped(path)
        rows = TokenRows(arrays["tokens"], arrays["loss_mask"], arrays["offsets"])
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"{path}: no readable token rows ({error}); remove its stage folder and run again") from error
    if len(rows.tokens) != len(rows.loss_mask) or rows.offsets[-1] != len(rows.tokens) or (rows.lengths < 0).any():
        raise StageError(f"{path}: tokens, mask and offsets do not fit each other")
    return rows


def mapped(path: Path) -> dict[str, NDArray[Any]]:
    """-> the arrays of a safetensors file: the header's length in 8 bytes, the header in JSON, then the arrays.

    bfloat16, which numpy does not know, comes as the bits, in uint16.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    types = {
        "I32": np.int32,
        "U8": np.uint8,
        "I64": np.int64,
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": np.uint16,
    }
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = types[entry["dtype"]]
        is_empty = begin == end  # which cannot be mapped
        shape = tuple(entry["shape"])
        arrays[name] = np.empty(0, dtype) if is_empty else np.memmap(path, dtype, "r", 8 + length + begin, shape)
    return arrays


def content(parts: Sequence[TokenRows], vocabulary: int) -> str:
    """-> the digest that names token rows: train and holdout, masks, and the size of the vocabulary."""
    text = "/".join([*(part.digest() for part in parts), str(vocabulary)])
    return hashlib.sha256(text.encode()).hexdigest()
