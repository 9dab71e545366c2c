"""A teacher in another space: trained projections between its states and the student's, and the loss against it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.losses.dskd import DSKD, RowStates
from ablate.training import batches
from ablate.training.head import Head
from ablate.training.logits_loss import Divergence, with_class_loss
from ablate.training.loss import ChunkLoss, Objective, Scratch, StudentChunk
from ablate.training.mixed_products import matmul
from ablate.training.model_parts import ModelParts
from ablate.training.own_tokens_teacher import OwnTokensTeacher, RowOutputs
from ablate.training.projections import PREFIX, new_weight

# M loss-bearing tokens of a row, D hidden width, V vocabulary of one of the models

QUERY, TO_STUDENT, TO_TEACHER = "query", "to_student", "to_teacher"


@dataclass(frozen=True, eq=False)
class DualSpaceTeacher(OwnTokensTeacher):
    """A teacher whose states the student's are compared with, in both spaces."""

    student: ModelParts
    weights: Mapping[str, Tensor]
    """Of the projections, by name."""

    def outputs(self, batch: batches.MicroBatch) -> "DualSpaceOutputs":
        """-> of the rows of a micro-batch of the student's."""
        by_row, begin = self.by_row(batch), 0
        rows: dict[int, BothModels] = {}
        inputs_M = batch.ids_BT.flatten()[batch.positions_M]
        for row in batch.rows:
            end = begin + int(self.student_rows.num_loss[row])
            rows[begin] = BothModels(inputs_M[begin:end], by_row.get(row))
            begin = end
        return DualSpaceOutputs(self, rows)

    # the loss's projections

    def query(self, x_M2D: Tensor) -> Tensor:
        return self._projected(QUERY, x_M2D)

    def to_student(self, x_MD: Tensor) -> Tensor:
        return self._projected(TO_STUDENT, x_MD)

    def to_teacher(self, x_MD: Tensor) -> Tensor:
        return self._projected(TO_TEACHER, x_MD)

    def student_logits(self, x_MD: Tensor) -> Tensor:
        return self._frozen_logits(self.student.head, x_MD)

    def teacher_logits(self, x_MD: Tensor) -> Tensor:
        return self._frozen_logits(self.parts.head, x_MD)

    def _projected(self, name: str, x_MD: Tensor) -> Tensor:
        weight, bias = (self.weights[f"{PREFIX}{name}.{part}"] for part in ("weight", "bias"))
        return matmul(x_MD, weight.T, self.student.model.dtype, bias)

    def _frozen_logits(self, head: Head, hidden_MD: Tensor) -> Tensor:
        """-> M x V, as `Head.logits`, differentiable in the states alone."""
        assert head.weight is not None
        logits_MV = self.product(hidden_MD, head.weight.detach()[: head.vocabulary].T)
        if head.bias is not None:
            logits_MV = logits_MV + head.bias.detach()[: head.vocabulary]
        logits_MV = logits_MV * head.scale
        return logits_MV if head.softcap is None else (logits_MV / head.softcap).tanh() * head.softcap

    def product(self, a_MK: Tensor, b_KN: Tensor) -> Tensor:
        return matmul(a_MK, b_KN, self.student.model.dtype)


class BothModels(NamedTuple):
    """One row."""

    inputs_M: Tensor
    """The tokens that the student reads where it predicts one that bears loss."""
    teacher: RowOutputs | None
    """None where no token of it bears loss for the teacher."""


class DualSpaceOutputs(NamedTuple):
    """A teacher's states of the rows of a micro-batch, each a chunk."""

    teacher: DualSpaceTeacher
    rows: Mapping[int, BothModels]
    """By its first token among the student's loss-bearing ones."""

    def cuts(self, hidden_MD: Tensor, vocabulary: int, logit_bytes: int | None = None) -> Iterator[slice]:
        """-> the rows, whatever they take: a row is compared as a whole."""
        yield from (slice(begin, begin + len(row.inputs_M)) for begin, row in self.rows.items())

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        """Also adds the gradient of the projections to their own."""
        row = self.rows[student.tokens.start]
        logits_MV = student.logits_to_overwrite()
        kd, grad_MD = self._differentiated(objective, row, student, logits_MV)
        grad_MV, sums = with_class_loss(objective, logits_MV, student.labels_C, kd)
        return ChunkLoss(student.backward(grad_MV) + grad_MD, sums)

    def _differentiated(
        self, objective: Objective, row: BothModels, student: StudentChunk, logits_MV: Tensor
    ) -> tuple[Divergence, Tensor]:
        """-> the loss of a row, and its gradient in the student's states beside that in its logits."""
        zero = logits_MV.new_zeros(())
        if row.teacher is None or not objective.kd_weight:
            return Divergence(zero, zero, None), torch.zeros_like(student.hidden_CD)
        assert isinstance(objective.kd, DSKD)
        hidden_MD, leaf_MV = student.hidden_CD.to(logits_MV.dtype), logits_MV.detach()
        weights = list(self.teacher.weights.values())
        with torch.enable_grad():
            theirs = self._states(self.teacher.parts, row.teacher, None)
            tokens = RowOutputs(hidden_MD.detach().requires_grad_(), row.inputs_M, student.labels_C)
            ours = self._states(self.teacher.student, tokens, leaf_MV.requires_grad_())
            loss = objective.kd.of_row(ours, theirs, self.teacher, objective.temperature)
            leaves = [ours.logits_MV, ours.hidden_MD, *weights]
            grad_MV, grad_MD, *grads = torch.autograd.grad(loss * objective.kd_weight, leaves)
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad if weight.grad is None else weight.grad.add_(grad)
        entropy_M = torch.special.entr((theirs.logits_MV / objective.temperature).softmax(1)).sum(1)
        return Divergence(loss.detach(), entropy_M, grad_MV), grad_MD.to(student.hidden_CD.dtype)

    def _states(self, parts: ModelParts, row: RowOutputs, logits_MV: Tensor | None) -> RowStates:
        """`logits_MV`: where they are at hand."""
        if logits_MV is None:
            logits_MV = parts.head.logits(row.hidden_MD)
        embedding_VD = parts.model.get_input_embeddings().weight.detach()
        inputs_MD, targets_MD = (embedding_VD[ids_M].to(logits_MV.dtype) for ids_M in (row.inputs_M, row.labels_M))
        return RowStates(row.hidden_MD.to(logits_MV.dtype), inputs_MD, targets_MD, row.labels_M, logits_MV)


def new_projections(student: ModelParts, teacher: ModelParts, seed: int) -> dict[str, Tensor]:
    """-> the weights of the projections, as nn.Linear begins with them; a function of the seed and the name alone."""
    ours, theirs = (_width(parts) for parts in (student, teacher))
    shapes = {QUERY: (2 * theirs, 2 * ours), TO_STUDENT: (ours, theirs), TO_TEACHER: (theirs, ours)}
    weights: dict[str, Tensor] = {}
    for name, (width_out, width_in) in shapes.items():
        for part, shape in (("weight", (width_out, width_in)), ("bias", (width_out,))):
            key = f"{PREFIX}{name}.{part}"
            weights[key] = new_weight(student, key, shape, width_in, seed)
    return weights


def _width(parts: ModelParts) -> int:
    """Raises StageError for a model whose states do not come apart from its logits."""
    embedding = parts.model.get_input_embeddings().weight
    if parts.head.weight is None or embedding.shape[1] != parts.head.weight.shape[1]:
        raise StageError(
            f"{type(parts.model).__name__}: dskd carries its hidden states into another space, and body and head of"
            " this model cannot be run apart: say loss: gold or uld"
        )
    return int(embedding.shape[1])
