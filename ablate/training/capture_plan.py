"""What is asked of a teacher once and for all, and the files that its outputs go to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.data.tokens import TokenRows
from ablate.training.head import Head
from ablate.training.model_parts import ModelParts
from ablate.training.teacher_cache import OutputForm, RowSplit, vocabulary_weight
from ablate.training.teacher_top_k import TeacherTopK, kept_dtype

# M loss-bearing tokens, D hidden width (of a vector the student's), V vocabulary

SHARD_ROWS = 512
SHARD_BYTES = 2**28


class Shard(NamedTuple):
    """Rows whose tokens lie end to end in one file."""

    split: RowSplit
    form: OutputForm
    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class VectorTarget:
    """What vectors are made for."""

    head: Head
    """The student's."""
    temperature: float


class TopKTarget(NamedTuple):
    """How many tokens of a teacher are kept, of its distribution at which temperature."""

    k: int
    temperature: float


@dataclass(frozen=True, eq=False)
class CapturePlan:
    """All that a cache consists of."""

    made_by: Sequence[str]
    """Names of the stages that made the teacher."""
    dtype: str
    teacher: ModelParts
    target: VectorTarget | TopKTarget | None
    """None: hidden states are kept, of which every divergence can be made."""
    splits: Mapping[RowSplit, TokenRows]
    rows_read: Mapping[RowSplit, Sequence[int]]
    """Which rows are asked about, of each split."""

    @property
    def forms(self) -> Mapping[RowSplit, OutputForm | None]:
        """Held-out rows are asked for every divergence, so that runs with different losses can be compared."""
        hidden: OutputForm | None = None if self.teacher.head.weight is None else "hidden"
        form: OutputForm | None = "top_k" if isinstance(self.target, TopKTarget) else "vector"
        return {"train": form if self.target else hidden, "holdout": hidden}

    def num_tokens(self, shard: Shard) -> int:
        return int(self.splits[shard.split].num_loss[list(shard.rows)].sum())

    @property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(shard for split, form in self.forms.items() if form for shard in self._shards(split, form))

    def empty_tensors(self, form: OutputForm, num: int) -> dict[str, Tensor]:
        """-> where the outputs of `num` tokens go, by name."""
        if form == "hidden":
            dtype = next(self.teacher.model.parameters()).dtype
            return {"hidden": torch.empty(num, vocabulary_weight(self.teacher.head).shape[1], dtype=dtype)}
        if isinstance(self.target, TopKTarget):
            return self._empty_top_k(self.target, num)
        weight_VD = vocabulary_weight(self.target.head)  # type: ignore[union-attr]
        dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        return {
            "vector": torch.empty(num, weight_VD.shape[1], dtype=dtype),
            "entropy": torch.empty(num, dtype=torch.float64),
        }

    def token_bytes(self, form: OutputForm) -> int:
        """-> of what is kept of a token."""
        return sum(tensor.nbytes for tensor in self.empty_tensors(form, 1).values())

    def _empty_top_k(self, target: TopKTarget, num: int) -> dict[str, Tensor]:
        dtype = kept_dtype(next(self.teacher.model.parameters()).dtype)
        k = min(target.k, self.teacher.head.vocabulary)
        of_tokens = {"ids_Mk": torch.empty(num, k, dtype=torch.int32), "logp_Mk": torch.empty(num, k, dtype=dtype)}
        return of_tokens | {name: torch.empty(num) for name in TeacherTopK._fields if name not in of_tokens}

    def _shards(self, split: RowSplit, form: OutputForm) -> Iterator[Shard]:
        num_loss = self.splits[split].num_loss
        width = self.token_bytes(form)
        rows: list[int] = []
        number = num_bytes = 0
        for row in sorted(row for row in self.rows_read[split] if num_loss[row]):
            if rows and (len(rows) == SHARD_ROWS or num_bytes + num_loss[row] * width > SHARD_BYTES):
                yield Shard(split, form, f"{split}-{number:05}.safetensors", tuple(rows))
                rows, num_bytes, number = [], 0, number + 1
            rows.append(row)
            num_bytes += int(num_loss[row]) * width
        if rows:
            yield Shard(split, form, f"{split}-{number:05}.safetensors", tuple(rows))
