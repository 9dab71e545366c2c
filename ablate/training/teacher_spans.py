"""What a teacher with another tokenizer says of spans of tokens that stand for the same text, and the loss then."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.losses.spans import Common, SpanLoss, SpanTokens
from ablate.training.head import Head
from ablate.training.logits_loss import Divergence, with_class_loss
from ablate.training.loss import ChunkLoss, Objective, Scratch, StudentChunk, chunk_size

# M loss-bearing tokens of one of the models, C of the student's in one chunk, N of some spans, S spans, D hidden width,
# V vocabulary of one of the models

STUDENT_BEGIN, STUDENT_END, TEACHER_BEGIN, TEACHER_END = range(4)


class TeacherSpans(NamedTuple):
    """A teacher's hidden states at its own loss-bearing tokens of a micro-batch, and where they meet the student's."""

    hidden_MD: Tensor
    labels_M: Tensor
    head: Head
    spans_S4: Tensor
    """Tokens of each span, begin and end of the student's and of the teacher's, in their order; on the CPU."""
    common: Common

    def cuts(self, hidden_MD: Tensor, vocabulary: int, logit_bytes: int | None = None) -> Iterator[slice]:
        """-> chunks of the student's tokens that cut through no span; of one span at least."""
        size = chunk_size(hidden_MD, max(vocabulary, self.head.vocabulary), logit_bytes)
        inside = {place for begin, end, *_ in self.spans_S4.tolist() for place in range(begin + 1, end)}
        borders = [place for place in range(len(hidden_MD) + 1) if place not in inside]
        begin = 0
        while begin < len(hidden_MD):
            after = bisect_right(borders, begin)
            end = borders[max(after, bisect_right(borders, begin + size) - 1)]
            yield slice(begin, end)
            begin = end

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        logits_CV = student.logits_to_overwrite()
        kd = self._differentiated(objective, student.tokens, logits_CV, student.labels_C)
        grad_CV, sums = with_class_loss(objective, logits_CV, student.labels_C, kd)
        return ChunkLoss(student.backward(grad_CV), sums)

    def _differentiated(self, objective: Objective, tokens: slice, logits_CV: Tensor, labels_C: Tensor) -> Divergence:
        """-> the loss of the spans in a chunk, one each; summed it is the chunk's."""
        spans_S4 = self._within(tokens)
        if not len(spans_S4):
            nothing = logits_CV.new_zeros(0)
            return Divergence(nothing, nothing, None)
        theirs = self._teacher_tokens(spans_S4, objective.temperature)
        places_N, begins_S = laid_out(
            spans_S4[:, STUDENT_BEGIN] - tokens.start, spans_S4[:, STUDENT_END] - tokens.start
        )
        places_N, begins_S = places_N.to(logits_CV.device), begins_S.to(logits_CV.device)
        assert isinstance(objective.kd, SpanLoss)
        leaf_CV, grad_CV = logits_CV.detach(), None
        with torch.set_grad_enabled(objective.kd_weight > 0):
            leaf_CV.requires_grad_(objective.kd_weight > 0)
            ours = SpanTokens(leaf_CV[places_N] / objective.temperature, labels_C[places_N], begins_S)
            kd_S = objective.kd.over_spans(ours, theirs, self.common)
            if objective.kd_weight:
                (grad_CV,) = torch.autograd.grad(kd_S.sum() * objective.kd_weight, leaf_CV)
        entropy_S = torch.special.entr(theirs.logits_NV[theirs.begins_S].softmax(1)).sum(1)
        return Divergence(kd_S.detach(), entropy_S, grad_CV)

    def _within(self, tokens: slice) -> Tensor:
        begins_S = self.spans_S4[:, STUDENT_BEGIN].contiguous()
        first, last = torch.searchsorted(begins_S, torch.tensor([tokens.start, tokens.stop], dtype=begins_S.dtype))
        return self.spans_S4[first:last]

    def _teacher_tokens(self, spans_S4: Tensor, temperature: float) -> SpanTokens:
        places_N, begins_S = laid_out(spans_S4[:, TEACHER_BEGIN], spans_S4[:, TEACHER_END])
        places_N = places_N.to(self.hidden_MD.device)
        logits_NV = self.head.logits(self.hidden_MD[places_N]) / temperature
        return SpanTokens(logits_NV, self.labels_M[places_N], begins_S.to(places_N.device))


def laid_out(begins_S: Tensor, ends_S: Tensor) -> tuple[Tensor, Tensor]:
    """-> the tokens of spans end to end (N), and where each span begins among them (S)."""
    lengths_S = ends_S - begins_S
    starts_S = lengths_S.cumsum(0) - lengths_S
    places_N = torch.arange(int(lengths_S.sum())) + (begins_S - starts_S).repeat_interleave(lengths_S)
    return places_N, starts_S
