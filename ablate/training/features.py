"""The loss on hidden states: both models' layers side by side, and the projection that is trained between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ablate.core.errors import StageError
from ablate.feature_losses import FeatureLoss
from ablate.feature_losses.base import LayerPair
from ablate.training import files
from ablate.training.batches import MicroBatch
from ablate.training.lora_linear import seed_of
from ablate.training.model_parts import ModelParts
from ablate.training.teacher_outputs import TeacherHidden
from ablate.training.trainable import Trainable

# M loss-bearing tokens, S the student's width, T the teacher's

PROJECTION = "feature_projection"
"""Name of the weight; with .safetensors behind it, of the file beside the result that keeps it."""


@dataclass(frozen=True, eq=False)
class Features:
    """Which layers are compared in a training, and how. Both models run beside each other for it."""

    loss: FeatureLoss
    teacher: ModelParts
    pairs: tuple[LayerPair, ...]
    """(teacher's layer, student's layer)."""
    projection_TS: nn.Parameter | None = None

    def forward(self, student: ModelParts, batch: MicroBatch) -> "FeatureBatch":
        """Runs both models over a micro-batch, once."""
        with torch.no_grad():
            layers = [layer for layer, _ in self.pairs]
            teacher_MT, of_teacher = self.teacher.hidden_and_layers(batch.ids_BT, batch.positions_M, layers)
        layers = [layer for _, layer in self.pairs]
        hidden_MS, of_student = student.hidden_and_layers(batch.ids_BT, batch.positions_M, layers)
        distances = [self.loss(self._projected(s), _wide(t)) for s, t in zip(of_student, of_teacher, strict=True)]
        distance_M = torch.stack(distances).mean(0)
        return FeatureBatch(hidden_MS, TeacherHidden(teacher_MT, self.teacher.head), distance_M)

    def _projected(self, state_MS: Tensor) -> Tensor:
        wide_MS = _wide(state_MS)
        if self.projection_TS is None:
            return wide_MS
        return wide_MS.to(self.projection_TS.dtype) @ self.projection_TS.T


class FeatureBatch(NamedTuple):
    """What both models say of a micro-batch; of the student's with a way back."""

    hidden_MS: Tensor
    """What the student's head is given."""
    teacher: TeacherHidden
    distance_M: Tensor
    """The feature loss of each token, averaged over the pairs of layers."""

    def backward(self, grad_MS: Tensor, weight: float) -> Tensor:
        """From the gradient in what the student's head is given, and the feature loss. -> its sum, in float64."""
        weights_M = torch.full_like(self.distance_M, weight)
        torch.autograd.backward([self.hidden_MS, self.distance_M], [grad_MS, weights_M])
        return self.distance_M.detach().sum(dtype=torch.float64)


class WithProjection:
    """What a training changes, and the projection beside it, which no model that results has in it."""

    def __init__(self, trainable: Trainable, projection_TS: nn.Parameter) -> None:
        self.trainable = trainable
        self.projection_TS = projection_TS
        self.weights: Mapping[str, Tensor] = {**trainable.weights, PROJECTION: projection_TS}

    def seed_dropout(self, seed: int, step: int, rows: Sequence[int]) -> None:
        self.trainable.seed_dropout(seed, step, rows)

    def discard_grads(self) -> None:
        self.projection_TS.grad = None
        self.trainable.discard_grads()

    def collect_grads(self) -> None:
        self.trainable.collect_grads()

    def update_model(self) -> None:
        self.trainable.update_model()

    def save(self, folder: Path) -> None:
        self.trainable.save(folder)
        tensors = {PROJECTION: self.projection_TS.detach().cpu().contiguous()}
        files.save(tensors, folder / f"{PROJECTION}.safetensors")


def make_features(loss: FeatureLoss, teacher: ModelParts, student: ModelParts, seed: int) -> Features:
    """-> the layers that `loss` compares of two models, a new projection between them where it wants one.

    Raises StageError for a layer that one of them lacks, or widths that differ where no projection is to be trained.
    """
    try:
        pairs = loss.pairs(teacher.depth, student.depth)
        is_projected = loss.is_projected(teacher.width, student.width)
    except ValueError as error:
        raise StageError(f"distill.features: {error}") from error
    return Features(loss, teacher, pairs, _new_projection(teacher, student, seed) if is_projected else None)


def _new_projection(teacher: ModelParts, student: ModelParts, seed: int) -> nn.Parameter:
    """Uniform in +-1/sqrt(S), as torch's Linear; in float32 or wider, by the seed alone."""
    generator = torch.Generator().manual_seed(seed_of(f"{seed}/{PROJECTION}"))
    uniform_TS = torch.rand(teacher.width, student.width, generator=generator)
    weight = next(student.model.parameters())
    bound_TS = (2 * uniform_TS - 1) / math.sqrt(student.width)
    return nn.Parameter(bound_TS.to(weight.device, torch.promote_types(weight.dtype, torch.float32)))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
