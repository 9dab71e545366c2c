"""The loss on hidden states: both models' layers side by side, and the projection that is trained between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ablate.core.errors import StageError
from ablate.feature_losses import FeatureLoss
from ablate.feature_losses.base import LayerPair
from ablate.training.batches import MicroBatch
from ablate.training.memory_estimate import States
from ablate.training.mixed_products import matmul
from ablate.training.model_parts import ModelParts
from ablate.training.own_tokens import OwnTokens
from ablate.training.projections import PREFIX, new_weight
from ablate.training.teacher_outputs import TeacherHidden

# M loss-bearing tokens, S the student's width, T the teacher's

PROJECTION = f"{PREFIX}features"
"""Name of the weight."""


@dataclass(frozen=True, eq=False)
class Features:
    """Which layers are compared in a training, and how. Both models run beside each other for it."""

    loss: FeatureLoss
    teacher: ModelParts
    pairs: tuple[LayerPair, ...]
    """(teacher's layer, student's layer)."""
    projection_TS: nn.Parameter | None = None

    @property
    def held(self) -> States:
        """What decides how much it holds."""
        tensors, is_projected = self.loss.kept_tensors, self.projection_TS is not None
        return States(self.teacher.depth, self.teacher.width, len(self.pairs), tensors, is_projected)

    @property
    def trained(self) -> Mapping[str, Tensor]:
        """What is trained of it, by name."""
        return {} if self.projection_TS is None else {PROJECTION: self.projection_TS}

    def forward(self, student: ModelParts, batch: MicroBatch, own: OwnTokens | None = None) -> "FeatureBatch":
        """Runs both models over a micro-batch, once; `own`: where the student wrote it."""
        with torch.no_grad():
            layers = [layer for layer, _ in self.pairs]
            teacher_MT, of_teacher = self.teacher.hidden_and_layers(batch, layers)
        layers = [layer for _, layer in self.pairs]
        hidden_MS, of_student = student.hidden_and_layers(batch, layers)
        distances = [self.loss(self._projected(s), _wide(t)) for s, t in zip(of_student, of_teacher, strict=True)]
        distance_M = torch.stack(distances).mean(0)
        return FeatureBatch(hidden_MS, TeacherHidden(teacher_MT, self.teacher.head, own), distance_M)

    def _projected(self, state_MS: Tensor) -> Tensor:
        if self.projection_TS is None:
            return _wide(state_MS)
        return matmul(state_MS, self.projection_TS.T, state_MS.dtype)


class FeatureBatch(NamedTuple):
    """What both models say of a micro-batch; of the student's with a way back."""

    hidden_MD: Tensor
    """M x S: what the student's head is given."""
    teacher: TeacherHidden
    distance_M: Tensor
    """The feature loss of each token, averaged over the pairs of layers."""

    def backward(self, grad_MS: Tensor, weight: float) -> Tensor:
        """From the gradient in what the student's head is given, and the feature loss. -> its sum."""
        weights_M = torch.full_like(self.distance_M, weight)
        torch.autograd.backward([self.hidden_MD, self.distance_M], [grad_MS, weights_M])
        return self.distance_M.detach().sum(dtype=torch.float64)


def make_features(loss: FeatureLoss, teacher: ModelParts, student: ModelParts, seed: int) -> Features:
    """-> the layers that `loss` compares of two models, a new projection between them where it wants one.

    Raises StageError for a layer that one of them lacks, or widths that differ where no projection is to be trained.
    """
    try:
        pairs = loss.pairs(teacher.depth, student.depth)
        is_projected = loss.is_projected(teacher.width, student.width)
    except ValueError as error:
        raise StageError(f"distill.features: {error}") from error
    if not is_projected:
        return Features(loss, teacher, pairs)
    shape = (teacher.width, student.width)
    return Features(loss, teacher, pairs, new_weight(student, PROJECTION, shape, student.width, seed))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
