"""A teacher with another tokenizer, beside the student: each reads a row in its own tokens, aligned by their text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.data.aligned_spans import AlignedRows, align_rows
from ablate.data.common_tokens import common_tokens
from ablate.data.token_texts import token_texts
from ablate.data.tokens import TokenRows
from ablate.losses.spans import Common
from ablate.training import batches
from ablate.training.model_parts import ModelParts
from ablate.training.teacher_spans import TeacherSpans

# M loss-bearing tokens, D hidden width, S spans


class Reader(NamedTuple):
    """Rows as one of the models reads them."""

    rows: TokenRows
    tokenizer: Any
    vocabulary: int


@dataclass(frozen=True, eq=False)
class SpanTeacher:
    """A teacher that runs beside the student and sees each row in its own tokenizer and template."""

    parts: ModelParts
    rows: TokenRows
    """Row i is the student's row i."""
    student_rows: TokenRows
    aligned: AlignedRows
    common: Common

    @property
    def shares(self) -> str:
        """How much of what counts is in a span, in words."""
        lengths_S2 = self.aligned.spans_S4[:, 1::2] - self.aligned.spans_S4[:, ::2]
        sides = (("student", self.student_rows), ("teacher", self.rows))
        nums = [(who, rows.counts.loss_tokens) for who, rows in sides]
        texts = [
            f"{in_spans / max(1, number):.1%} of the {who}'s {number:,}"
            for (who, number), in_spans in zip(nums, lengths_S2.sum(0), strict=True)
        ]
        return (
            f"{' and '.join(texts)} loss-bearing tokens stand in {len(lengths_S2):,} spans of the same text; of the"
            " others KD says nothing"
        )

    @torch.no_grad()
    def outputs(self, batch: batches.MicroBatch) -> TeacherSpans:
        """-> of the rows of a micro-batch of the student's."""
        by_row = dict(self._each_row(batch))
        known = [by_row[row] for row in batch.rows if row in by_row]
        device = batch.ids_BT.device
        hidden_MD = torch.cat([one.hidden_MD for one in known]) if known else torch.zeros(0, 1, device=device)
        labels_M = torch.cat([one.labels_M for one in known]) if known else batch.labels_M[:0]
        return TeacherSpans(hidden_MD, labels_M, self.parts.head, self._spans(batch.rows), self.common)

    def _each_row(self, batch: batches.MicroBatch) -> Iterator[tuple[int, "_RowOutputs"]]:
        """-> what the teacher says of each row of a loss-bearing token of its own; cut as its own lengths ask."""
        budget, device = batch.ids_BT.numel(), str(batch.ids_BT.device)
        for theirs in batches.micro_batches(self.rows, batch.rows, budget, device, self.parts.cutting):
            hidden_MD = self.parts.hidden(theirs.ids_BT, theirs.positions_M)
            nums = [int(self.rows.num_loss[row]) for row in theirs.rows]
            parts = zip(torch.split(hidden_MD, nums), torch.split(theirs.labels_M, nums), strict=True)
            yield from zip(theirs.rows, (_RowOutputs(*part) for part in parts), strict=True)

    def _spans(self, rows: Sequence[int]) -> Tensor:
        """-> the spans of some rows, numbered through the tokens of all of them."""
        ours, theirs, spans = 0, 0, []
        for row in rows:
            spans.append(self.aligned.row(row) + np.array([ours, ours, theirs, theirs], np.int64))
            ours, theirs = ours + int(self.student_rows.num_loss[row]), theirs + int(self.rows.num_loss[row])
        return torch.from_numpy(np.concatenate(spans))


class _RowOutputs(NamedTuple):
    hidden_MD: Tensor
    labels_M: Tensor


def make_span_teacher(parts: ModelParts, student: Reader, teacher: Reader) -> SpanTeacher:
    """-> a loaded teacher beside its student, once the rows of both are aligned.

    Raises StageError where they cannot be: other numbers of rows, no common span, a tokenizer that does not tell.
    """
    if len(student.rows) != len(teacher.rows):
        raise StageError(
            f"the student's template makes {len(student.rows):,} rows of tokens of the data and the teacher's"
            f" {len(teacher.rows):,}, so that they cannot be set side by side: data.answers: last makes one row of each"
        )
    texts = [token_texts(one.tokenizer) for one in (student, teacher)]
    aligned = align_rows(student.rows, teacher.rows, *texts)
    if not len(aligned.spans_S4):
        raise StageError(
            "no token of a row that counts for the student stands for the text of one that counts for the teacher: do"
            " their templates render the same answers? `ablate data` shows the rows of both"
        )
    pairs = common_tokens(*texts)
    kept = [(i, j) for i, j in zip(*pairs, strict=True) if i < student.vocabulary and j < teacher.vocabulary]
    ids_2K = torch.tensor(kept, dtype=torch.int64).reshape(-1, 2).T.to(parts.model.device)
    return SpanTeacher(parts, teacher.rows, student.rows, aligned, Common(*ids_2K))
