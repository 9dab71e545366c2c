"""The teacher's outputs, read back: vectors, hidden states or likeliest tokens, in shards on disk."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
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
from ablate.training.one_ahead import OneAhead
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
    num: int


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


def row_places(rows: TokenRows, file: str, chosen: Sequence[int]) -> dict[int, RowPlace]:
    """-> where each row of a shard lies in it."""
    begins = token_offsets(rows, chosen)
    return {row: RowPlace(file, begin, int(rows.num_loss[row])) for row, begin in begins.items()}


def read_row(out: Path, place: RowPlace) -> dict[str, Tensor]:
    """-> what is kept of a row, by name; no more than that is read."""
    arrays = _mapped(out / place.file)
    return {name: _joined([_part(array, place)], is_pinned=False) for name, array in arrays.items()}


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
        # the whole was looked at when it was made
        ends = (_joined([array[[0, -1]]], is_pinned=False) for array in arrays.values())
        if not all(end.isfinite().all() for end in ends):
            raise StageError(f"{folder}: {shard['file']} is not finite")


def _mapped(path: Path) -> dict[str, Any]:
    try:
        return mapped(path)
    except (OSError, KeyError, ValueError) as error:
        raise StageError(f"{path}: no readable shard ({error}); remove its stage folder and run again") from error


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
    """A finished cache: memory maps, from which a thread reads one micro-batch ahead, into pinned memory for a card."""

    def __init__(self, index: CacheIndex, splits: Mapping[RowSplit, TokenRows], device: str) -> None:
        """`splits`: the rows that the cache was made of, by which each one's outputs are found."""
        self.index = index
        self._device = device
        self._maps: dict[str, dict[str, Any]] = {}
        self._places: dict[tuple[str, int], RowPlace] = {}
        for shard in index.record["shards"]:
            self._maps[shard["file"]] = _mapped(index.out / shard["file"])
            places = row_places(splits[shard["part"]], shard["file"], shard["rows"])
            self._places |= {(shard["part"], row): place for row, place in places.items()}
        has_head = (index.out / HEAD).is_file()
        self.head = _load_head(index.out / HEAD, index.record["teacher_head"], device) if has_head else None
        """The teacher's, where hidden states were kept."""
        self._reader = OneAhead(self._read_on_host)

    @property
    def form(self) -> OutputForm:
        """Of the rows that are trained on."""
        form: OutputForm = self.index.record["form"]
        return form

    @property
    def token_bytes(self) -> int:
        """Of what is kept of a token that is trained on."""
        arrays = next((self._maps[one["file"]] for one in self.index.record["shards"] if one["part"] == "train"), {})
        return sum(array.nbytes // max(1, len(array)) for array in arrays.values())

    @property
    def is_idle(self) -> bool:
        """Whether no micro-batch is expected."""
        return self._reader.is_idle

    def expect(self, split: RowSplit, cuts: Iterable[Sequence[int]]) -> None:
        """Reads ahead: these micro-batches will be asked for next, after those expected already."""
        self._reader.expect((split, tuple(chosen)) for chosen in cuts)

    def close(self) -> None:
        """Ends its thread; it can still be asked."""
        self._reader.close()

    def outputs(self, split: RowSplit, batch: batches.MicroBatch) -> TeacherHidden | TeacherVectors | TeacherTopK:
        """-> the teacher's outputs of a micro-batch. Raises StageError for a row that it was not asked about."""
        if self.form == "hidden":
            return self.hidden_outputs(split, batch)
        tensors = self._read(split, batch)
        if self.form == "top_k":
            return TeacherTopK(**tensors)
        return TeacherVectors(vector_MD=tensors["vector"], entropy_M=tensors["entropy"])

    def hidden_outputs(self, split: RowSplit, batch: batches.MicroBatch) -> TeacherHidden:
        """-> the same, where hidden states were kept."""
        if self.head is None:
            raise StageError(f"{self.index.out}: no hidden states were kept")
        return TeacherHidden(self._read(split, batch)["hidden"], self.head)

    def _read(self, split: RowSplit, batch: batches.MicroBatch) -> dict[str, Tensor]:
        on_host = self._reader((split, tuple(batch.rows)))
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in on_host.items()}

    def _read_on_host(self, asked: tuple[RowSplit, tuple[int, ...]]) -> dict[str, Tensor]:
        """Of a micro-batch, by name; row by row."""
        split, chosen = asked
        places = [self._place(split, row) for row in chosen]
        for file in {place.file for place in places}:
            _advise_reading(self.index.out / file, self._maps[file], [place for place in places if place.file == file])
        parts = {
            name: [_part(self._maps[one.file][name], one) for one in places] for name in self._maps[places[0].file]
        }
        return {name: _joined(arrays, is_pinned=self._device != "cpu") for name, arrays in parts.items()}

    def _place(self, split: RowSplit, row: int) -> RowPlace:
        place = self._places.get((split, row))
        if place is None:
            raise StageError(f"{self.index.out}: row {row} of {split} is not in the teacher's cache")
        return place


def _part(array: Any, place: RowPlace) -> Any:
    return array[place.begin : place.begin + place.num]


def _joined(arrays: Sequence[Any], *, is_pinned: bool) -> Tensor:
    """-> a tensor of its own, of all of them end to end; bfloat16, unknown to numpy, is mapped as integers."""
    dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
    joined = torch.empty(sum(map(len, arrays)), *arrays[0].shape[1:], dtype=dtype, pin_memory=is_pinned)
    np.concatenate(arrays, out=joined.numpy())
    return joined.view(torch.bfloat16) if dtype == torch.uint16 else joined


def _advise_reading(path: Path, arrays: Mapping[str, Any], places: Iterable[RowPlace]) -> None:
    """Has the system read what lies there from the disk, all of it at once."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        for place in places:
            for array in arrays.values():
                width = array.nbytes // max(len(array), 1)
                begin, num_bytes = array.offset + place.begin * width, place.num * width
                os.posix_fadvise(file.fileno(), begin, num_bytes, os.POSIX_FADV_WILLNEED)


def _load_head(path: Path, settings: Mapping[str, Any], device: str) -> Head:
    try:
        tensors = load_file(path, device)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{path}: no readable head ({error}); remove its stage folder and run again") from error
    if "weight" not in tensors or tensors.keys() - {"weight", "bias"}:
        raise StageError(f"{path}: no head, but {', '.join(sorted(tensors))}; remove its stage folder and run again")
    return make_head(tensors["weight"], tensors.get("bias"), len(tensors["weight"]), **settings)
