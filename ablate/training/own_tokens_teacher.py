"""A teacher that reads each row in its own tokens, by its own template: row i of one is row i of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.data.tokens import TokenRows
from ablate.training import batches
from ablate.training.model_parts import ModelParts

# M loss-bearing tokens of a row, D hidden width


class Reader(NamedTuple):
    """Rows as one of the models reads them."""

    rows: TokenRows
    tokenizer: Any
    vocabulary: int


class RowOutputs(NamedTuple):
    """What a model says of one row."""

    hidden_MD: Tensor
    inputs_M: Tensor
    """The tokens read where these are predicted."""
    labels_M: Tensor


@dataclass(frozen=True, eq=False)
class OwnTokensTeacher:
    """A teacher that runs beside the student."""

    parts: ModelParts
    rows: TokenRows
    student_rows: TokenRows

    def by_row(self, batch: batches.MicroBatch) -> dict[int, RowOutputs]:
        """-> what the teacher says of each row of a student's micro-batch, where a token of its own bears loss."""
        return dict(self._each_row(batch))

    @torch.no_grad()
    def _each_row(self, batch: batches.MicroBatch) -> Iterator[tuple[int, RowOutputs]]:
        """Cut as its own lengths ask."""
        budget, device = batch.ids_BT.numel(), str(batch.ids_BT.device)
        for theirs in batches.micro_batches(self.rows, batch.rows, budget, device, self.parts.cutting):
            hidden_MD = self.parts.hidden(theirs)
            nums = [int(self.rows.num_loss[row]) for row in theirs.rows]
            whole = (hidden_MD, theirs.ids_BT.flatten()[theirs.positions_M], theirs.labels_M)
            for row, *parts in zip(theirs.rows, *(torch.split(one, nums) for one in whole), strict=True):
                yield row, RowOutputs(*parts)


def require_same_rows(student: TokenRows, teacher: TokenRows) -> None:
    """Raises StageError where rows cannot be set side by side."""
    if len(student) != len(teacher):
        raise StageError(
            f"the student's template makes {len(student):,} rows of tokens of the data and the teacher's"
            f" {len(teacher):,}, so that they cannot be set side by side: data.answers: last makes one row of each"
        )
