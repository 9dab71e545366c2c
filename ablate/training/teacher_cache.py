"""The teacher's outputs, read back: vectors, hidden states or likeliest tokens, in shards on disk."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.data.tokens import TokenRows, mapped
from ablate.losses.forward_kl import ForwardKL
from ablate.training import batches
from ablate.training.head import Head, make_head
from ablate.training.loss import Objective
from ablate.training.teacher_outputs import TeacherHidden, TeacherVectors
from ablate.training.teacher_top_k import TeacherTopK

# M loss-bearing tokens, D hidden width, V vocabulary

RowSplit: TypeAlias = Literal["train", "holdout"]
OutputForm: TypeAlias = Literal["vector", "hidden", "top_k"]
INDEX = "index.json"
HEAD = "head.safetensors"
"""The teacher's head, which turns hidden states into logits."""


@dataclass(frozen=True, eq=False)
class CacheNeeds:
    """A training that looks for the outputs of its teacher."""

    teacher: Sequence[str]
    """Names of the stages that made it."""
    dtype: str
    splits: Mapping[RowSplit, TokenRows]
    objective: Objective
    head: Head
    """The student's."""


class RowPlace(NamedTuple):
    """Where the outputs of a row lie."""

    file: str
    begin: int
    """In tokens."""


def why_no_vectors(head: Head) -> str | None:
    """-> why a student's head cannot be served by vectors, or None."""
    if head.weight is None:
        return "the student's logits are made whole"
    if head.bias is not None or head.softcap is not None:
        return "the student's head has a bias or caps its logits"
    return "the student's head is trained" if head.is_trained else None


def head_digest(head: Head) -> str:
    """-> sha256 of a head's weights, the same in 16 bits as in 32, and its scale."""
    weight_VD = vocabulary_weight(head)
    hasher = hashlib.sha256(f"{tuple(weight_VD.shape)}/{head.scale!r}".encode())
    for chunk in torch.split(weight_VD, 4096):
        hasher.update(chunk.to(torch.promote_types(chunk.dtype, torch.float32)).cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def vocabulary_weight(head: Head) -> Tensor:
    """-> V x D: the rows of the tokenizer."""
    if head.weight is None:
        raise StageError("answers can be kept only of models whose body and head can be run apart")
    return head.weight.detach()[: head.vocabulary]


def token_offsets(rows: TokenRows, chosen: Sequence[int]) -> dict[int, int]:
    """-> row: where its tokens begin in its shard."""
    ends = np.cumsum(rows.num_loss[list(chosen)])
    return {row: int(end - rows.num_loss[row]) for row, end in zip(chosen, ends, strict=True)}


def read_row(out: Path, place: RowPlace, num: int) -> dict[str, Tensor]:
    """-> what is kept of the `num` tokens of a row, by name; no more than that is read."""
    arrays = _mapped(out / place.file)
    return {name: _tensor(np.array(array[place.begin : place.begin + num])) for name, array in arrays.items()}


def check_cache(folder: Path) -> None:
    """Every shard reopens and has the tokens that the index says. Raises StageError."""
    index = disk.read_json(folder / "out" / INDEX)
    if index is None:
        raise StageError(f"{folder}: no {INDEX}")
    for shard in index["shards"]:
        arrays = _mapped(folder / "out" / shard["file"])
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        if shapes != {name: [shard["tokens"], *width] for name, width in index["widths"][shard["form"]].items()}:
            raise StageError(f"{folder}: {shard['file']} has {shapes}, not {shard['tokens']} tokens")
        ends = (_tensor(array[[0, -1]]) for array in arrays.values())  # the whole was looked at when it was made
        if not all(end.isfinite().all() for end in ends):
            raise StageError(f"{folder}: {shard['file']} is not finite")


def _mapped(path: Path) -> dict[str, Any]:
    try:
        return mapped(path)
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"{path}: no readable shard ({error}); remove its stage folder and run again") from error


def _tensor(array: Any) -> Tensor:
    """bfloat16 is unknown to numpy: its bits are mapped as integers."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


class CacheIndex:
    """What a finished cache says that it holds."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.record: dict[str, Any] = disk.read_json(out / INDEX) or {"form": None, "why": f"no {INDEX}", "shards": []}

    @property
    def has_holdout(self) -> bool:
        """Whether every divergence can be made of the held-out rows."""
        return self.record["form"] is not None and self.record["holdout"] == "hidden"

    def misfit(self, needs: CacheNeeds, *, may_be_vectors: bool = True) -> str | None:
        """-> why these outputs cannot stand for the teacher in a training, or None."""
        index = self.record
        if index["form"] is None:
            return str(index["why"])
        digests = {split: rows.digest() for split, rows in needs.splits.items()}
        if (list(needs.teacher), needs.dtype, digests) != (index["teacher"], index["dtype"], index["rows"]):
            return "it was made of another teacher, dtype or rows"
        if index["form"] == "hidden":
            return None
        if not may_be_vectors:
            return "several teachers' mean is taken of all their logits"
        form, temperature = needs.objective.top_k, needs.objective.temperature
        if index["form"] == "top_k" or form:
            is_same = index["form"] == "top_k" and form and (index["k"], index["temperature"]) == (form.k, temperature)
            return None if is_same else "it was made of more or fewer of the teacher's likeliest tokens"
        if not isinstance(needs.objective.kd, ForwardKL):
            return f"{needs.objective.kd.name} needs the teacher's logits"
        if why := why_no_vectors(needs.head):
            return why
        if (needs.objective.temperature, head_digest(needs.head)) != (index["temperature"], index["head"]):
            return "it was made for another temperature or head"
        return None


class CachedTeacher:
    """A finished cache, read as a memory map."""

    def __init__(self, index: CacheIndex, splits: Mapping[RowSplit, TokenRows], device: str) -> None:
        """`splits`: the rows that the cache was made of, by which each one's outputs are found."""
        self.index = index
        self._maps: dict[str, dict[str, Any]] = {}
        self._places: dict[tuple[str, int], RowPlace] = {}
        for shard in index.record["shards"]:
            self._maps[shard["file"]] = _mapped(index.out / shard["file"])
            begins = token_offsets(splits[shard["part"]], shard["rows"])
            self._places |= {(shard["part"], row): RowPlace(shard["file"], begin) for row, begin in begins.items()}
        has_head = (index.out / HEAD).is_file()
        self._head = _load_head(index.out / HEAD, index.record["teacher_head"], device) if has_head else None

    def read_ahead(self, split: RowSplit, rows: TokenRows, chosen: Sequence[int]) -> None:
        """Has the system read from the disk what these rows will need, in the background."""
        for row in chosen:
            if place := self._places.get((split, row)):
                _advise_reading(
                    self.index.out / place.file, self._maps[place.file], place.begin, int(rows.num_loss[row])
                )

    def outputs(
        self, split: RowSplit, rows: TokenRows, batch: batches.MicroBatch
    ) -> TeacherHidden | TeacherVectors | TeacherTopK:
        """-> the teacher's outputs of a micro-batch. Raises StageError for a row that it was not asked about."""
        if self.index.record["form"] == "hidden":
            return self.hidden_outputs(split, rows, batch)
        tensors = self._read(split, rows, batch)
        if self.index.record["form"] == "top_k":
            return TeacherTopK(**tensors)
        return TeacherVectors(vector_MD=tensors["vector"], entropy_M=tensors["entropy"])

    def hidden_outputs(self, split: RowSplit, rows: TokenRows, batch: batches.MicroBatch) -> TeacherHidden:
        """-> the same, where hidden states were kept."""
        if self._head is None:
            raise StageError(f"{self.index.out}: no hidden states were kept")
        return TeacherHidden(self._read(split, rows, batch)["hidden"], self._head)

    def _read(self, split: RowSplit, rows: TokenRows, batch: batches.MicroBatch) -> dict[str, Tensor]:
        by_row = [self._row(split, row, int(rows.num_loss[row])) for row in batch.rows]
        arrays = {name: np.concatenate([row[name] for row in by_row]) for name in by_row[0]}
        return {name: _tensor(array).to(batch.ids_BT.device) for name, array in arrays.items()}

    def _row(self, split: RowSplit, row: int, num: int) -> dict[str, Any]:
        place = self._places.get((split, row))
        if place is None:
            raise StageError(f"{self.index.out}: row {row} of {split} is not in the teacher's cache")
        return {name: array[place.begin : place.begin + num] for name, array in self._maps[place.file].items()}


def _advise_reading(path: Path, arrays: Mapping[str, Any], begin: int, num: int) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        for array in arrays.values():
            width = array.nbytes // max(len(array), 1)
            os.posix_fadvise(file.fileno(), array.offset + begin * width, num * width, os.POSIX_FADV_WILLNEED)


def _load_head(path: Path, settings: Mapping[str, Any], device: str) -> Head:
    try:
        tensors = load_file(path, device)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{path}: no readable head ({error}); remove its stage folder and run again") from error
    if "weight" not in tensors or tensors.keys() - {"weight", "bias"}:
        raise StageError(f"{path}: no head, but {', '.join(sorted(tensors))}; remove its stage folder and run again")
    return make_head(tensors["weight"], tensors.get("bias"), len(tensors["weight"]), **settings)
