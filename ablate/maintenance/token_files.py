"""Whether a file of tokens holds what was written: read piece by piece, whatever its size, with no array in memory."""

import hashlib
import json
import struct
from io import BufferedReader
from pathlib import Path
from typing import Any

from ablate.core import plain_files

CHUNK_BYTES = 1 << 20
LONGEST_HEADER = 1 << 20
HASHED = ("lengths", "ids")
"""The tensors whose bytes the digest is of, in this order; see `ablate.evaluation.known_tokens`."""


def is_whole(path: Path) -> bool:
    """Whether the digest that was noted is that of the tensors, and nothing else is in the file."""
    try:
        with plain_files.opened(path) as file:
            return _is_whole(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return False


def _is_whole(file: BufferedReader) -> bool:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > LONGEST_HEADER:
        return False
    header: dict[str, Any] = json.loads(file.read(length))
    noted = header.pop("__metadata__")["sha256"]
    places = {name: tensor["data_offsets"] for name, tensor in header.items()}
    end = max(stop for _, stop in places.values())
    if sorted(places) != sorted(HASHED) or file.seek(0, 2) != 8 + length + end or not _are_fitting(header):
        return False
    hasher = hashlib.sha256()
    for name in HASHED:
        start, stop = places[name]
        file.seek(8 + length + start)
        _hash(file, stop - start, hasher)
    return bool(hasher.hexdigest() == noted)


def _are_fitting(header: dict[str, Any]) -> bool:
    """Whether shapes and types are those of numbers of tokens, and of tokens."""
    widths = {"lengths": ("I64", 8), "ids": ("I32", 4)}
    return all(
        (tensor["dtype"], tensor["data_offsets"][1] - tensor["data_offsets"][0])
        == (widths[name][0], widths[name][1] * tensor["shape"][0])
        and len(tensor["shape"]) == 1
        for name, tensor in header.items()
    )


def _hash(file: BufferedReader, num_bytes: int, hasher: Any) -> None:
    while num_bytes > 0:
        data = file.read(min(num_bytes, CHUNK_BYTES))
        if not data:
            return
        hasher.update(data)
        num_bytes -= len(data)
