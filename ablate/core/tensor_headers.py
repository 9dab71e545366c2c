"""The header of a safetensors file: which tensors it holds, of which dtype and shape, read without their numbers.

Format: 8 bytes of length (little-endian), so many bytes of JSON {name: {dtype, shape, data_offsets}}, then the numbers.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of weights as they are trained and asked."""
WIDTHS = {"U64": 8, "I64": 8, "F64": 8, "F32": 4, "U32": 4, "I32": 4}
WIDTHS |= {"BF16": 2, "F16": 2, "U16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes a number, in the order in which a file has them; others (of 8 bits and fewer) are not counted."""


class StoredTensor(NamedTuple):
    """A tensor as a file has it."""

    dtype: str
    """As in the format: F32, BF16, F8_E4M3, I32, ..."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return WIDTHS[self.dtype] * math.prod(self.shape)


class Header(NamedTuple):
    """What a file begins with."""

    raw: bytes
    names: tuple[str, ...]
    """Of the tensors, as their numbers are to follow."""
    num_bytes: int
    """Of the whole file."""


class BadTensorFileError(ValueError):
    """No whole safetensors file, and why."""


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """-> the tensors of a file, by name. Raises BadTensorFileError where it is torn, OSError where it is not read."""
    size = os.stat(path).st_size  # noqa: PTH116 (follows links into the hub's cache in one call)
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise BadTensorFileError(f"it is cut short: it has {size:,} bytes, and no header")
        (length,) = struct.unpack("<Q", start)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise BadTensorFileError(f"it is no safetensors file, or cut short: {size:,} bytes, a header of {length:,}")
        header = _parsed(file.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if end != size:
        what = "it is cut short" if size < end else "it has more than its header says"
        raise BadTensorFileError(f"{what}: {size:,} bytes, not {end:,}")
    return {name: _tensor(name, entry) for name, entry in tensors.items()}


def header_of(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None) -> Header:
    """-> the header of a file of these tensors, byte for byte as the library safetensors writes it."""
    order = list(WIDTHS)
    names = tuple(sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name.encode())))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].num_bytes
        entries[name] = tensors[name]._asdict() | {"data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return Header(struct.pack("<Q", len(text)) + text, names, 8 + len(text) + end)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise BadTensorFileError("its header is no JSON: it is torn, or no safetensors file") from error
    if not isinstance(header, dict) or not all(_is_entry(entry) for key, entry in header.items() if key[:2] != "__"):
        raise BadTensorFileError("its header lists no tensors: it is torn, or no safetensors file")
    return header


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return False
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    return len(offsets) == 2 and all(isinstance(number, int) and number >= 0 for number in numbers)


def _tensor(name: str, entry: dict[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    width = WIDTHS.get(entry["dtype"])
    if width is not None and end - begin != width * math.prod(entry["shape"]):
        raise BadTensorFileError(f"its header contradicts itself about {name}: it is torn")
    return StoredTensor(str(entry["dtype"]), tuple(entry["shape"]))
