"""The teacher's answers, read back: per loss-bearing token the vector of `loss.Vectors`, in shards on disk."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ablate import disk
from ablate.data.tokens import TokenRows, mapped
from ablate.engine import batches
from ablate.engine.loss import Objective, Vectors
from ablate.engine.split import Head
from ablate.errors import StageError
from ablate.losses.forward_kl import ForwardKL

# D the student's hidden width, V vocabulary

Part: TypeAlias = Literal["train", "holdout"]
INDEX = "index.json"


def unfit(head: Head) -> str | None:
    """-> why a student's head cannot be served by vectors, or None."""
    if head.weight is None:
        return "the student's logits are made whole"
    if head.bias is not None or head.softcap is not None:
        return "the student's head has a bias or caps its logits"
    return "the student's head is trained" if head.is_trained else None


def head_digest(head: Head) -> str:
    """-> sha256 of a head's weights, the same in 16 bits as in 32, and its scale."""
    weight_VD = (
        weight_of(head).detach()[: head.vocabulary].to(torch.promote_types(weight_of(head).dtype, torch.float32))
    )
    hasher = hashlib.sha256(f"{tuple(weight_VD.shape)}/{head.scale!r}".encode())
    for chunk in torch.split(weight_VD, 4096):
        hasher.update(chunk.cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def weight_of(head: Head) -> Tensor:
    if head.weight is None:
        raise StageError("vectors need a student whose body and head can be run apart")
    return head.weight


def starts(rows: TokenRows, chosen: Sequence[int]) -> dict[int, int]:
    """-> row: where its tokens begin in its shard."""
    ends = np.cumsum(rows.num_loss[list(chosen)])
    return {row: int(end - rows.num_loss[row]) for row, end in zip(chosen, ends, strict=True)}


def check(folder: Path) -> None:
    """Every shard reopens and has the tokens that the index says. Raises StageError."""
    index = disk.read_json(folder / "out" / INDEX)
    if index is None:
        raise StageError(f"{folder}: no {INDEX}")
    for shard in index["shards"]:
        arrays = _mapped(folder / "out" / shard["file"])
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {"vector": (shard["tokens"], index["width"]), "entropy": (shard["tokens"],)}:
            raise StageError(f"{folder}: {shard['file']} has {shapes}, not {shard['tokens']} tokens")
        ends = arrays["vector"][[0, -1]]  # the whole was looked at when it was made
        if not (np.isfinite(ends).all() and np.isfinite(arrays["entropy"]).all()):
            raise StageError(f"{folder}: {shard['file']} is not finite")


def _mapped(path: Path) -> dict[str, Any]:
    try:
        return mapped(path)
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"{path}: no readable shard ({error}); remove its stage folder and run again") from error


class Cache:
    """A finished cache, read as a memory map."""

    def __init__(self, out: Path) -> None:
        self.index: dict[str, Any] = disk.read_json(out / INDEX) or {"form": None, "why": f"no {INDEX}", "shards": []}
        self._out = out
        self._maps: dict[str, dict[str, Any]] = {}
        self._places: dict[tuple[str, int], tuple[str, int]] = {}

    def misfit(self, objective: Objective, head: Head, parts: Mapping[Part, TokenRows]) -> str | None:
        """-> why these vectors cannot stand for the teacher in a training, or None."""
        if self.index["form"] != "vector":
            return str(self.index["why"])
        if not isinstance(objective.kd, ForwardKL):
            return f"{objective.kd.name} needs the teacher's logits"
        if why := unfit(head):
            return why
        ours = (objective.temperature, head_digest(head), {part: rows.digest() for part, rows in parts.items()})
        if ours != tuple(self.index[name] for name in ("temperature", "head", "rows")):
            return "it was made for another temperature, head or rows"
        return None

    def open(self, parts: Mapping[Part, TokenRows]) -> "Cache":
        """Finds every row."""
        for shard in self.index["shards"]:
            self._maps[shard["file"]] = _mapped(self._out / shard["file"])
            begins = starts(parts[shard["part"]], shard["rows"])
            self._places |= {(shard["part"], row): (shard["file"], start) for row, start in begins.items()}
        return self

    def answers(self, part: Part, rows: TokenRows, batch: batches.MicroBatch) -> Vectors:
        """-> what the teacher said of a micro-batch. Raises StageError for a row that it was not asked about."""
        found = [self._row(part, row, int(rows.num_loss[row])) for row in batch.rows]
        vector_MD, entropy_M = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*found, strict=True))
        return Vectors(vector_MD.to(batch.ids_BT.device), entropy_M.to(batch.ids_BT.device))

    def _row(self, part: Part, row: int, num: int) -> tuple[Any, Any]:
        if (part, row) not in self._places:
            raise StageError(f"{self._out}: row {row} of {part} is not in the teacher's cache")
        name, begin = self._places[part, row]
        arrays = self._maps[name]
        return arrays["vector"][begin : begin + num], arrays["entropy"][begin : begin + num]
