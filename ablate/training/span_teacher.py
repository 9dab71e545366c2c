"""A teacher with another tokenizer, beside the student: each reads a row in its own tokens, aligned by their text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.data.aligned_spans import AlignedRows, align_rows
from ablate.data.common_tokens import common_tokens
from ablate.data.token_texts import token_texts
from ablate.losses.spans import Common
from ablate.training import batches
from ablate.training.model_parts import ModelParts
from ablate.training.own_tokens_teacher import OwnTokensTeacher, Reader, require_same_rows
from ablate.training.teacher_spans import TeacherSpans

# M loss-bearing tokens, D hidden width, S spans


@dataclass(frozen=True, eq=False)
class SpanTeacher(OwnTokensTeacher):
    """A teacher whose tokens are compared with the student's where they stand for the same text."""

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

    def outputs(self, batch: batches.MicroBatch) -> TeacherSpans:
        """-> of the rows of a micro-batch of the student's."""
        by_row = self.by_row(batch)
        known = [by_row[row] for row in batch.rows if row in by_row]
        device = batch.ids_BT.device
        hidden_MD = torch.cat([one.hidden_MD for one in known]) if known else torch.zeros(0, 1, device=device)
        labels_M = torch.cat([one.labels_M for one in known]) if known else batch.labels_M[:0]
        return TeacherSpans(hidden_MD, labels_M, self.parts.head, self._spans(batch.rows), self.common)

    def _spans(self, rows: Sequence[int]) -> Tensor:
        """-> the spans of some rows, numbered through the tokens of all of them."""
        ours, theirs, spans = 0, 0, []
        for row in rows:
            spans.append(self.aligned.row(row) + np.array([ours, ours, theirs, theirs], np.int64))
            ours, theirs = ours + int(self.student_rows.num_loss[row]), theirs + int(self.rows.num_loss[row])
        return torch.from_numpy(np.concatenate(spans))


def make_span_teacher(parts: ModelParts, student: Reader, teacher: Reader) -> SpanTeacher:
    """-> a loaded teacher beside its student, once the rows of both are aligned.

    Raises StageError where they cannot be: other numbers of rows, no common span, a tokenizer that does not tell.
    """
    require_same_rows(student.rows, teacher.rows)
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
