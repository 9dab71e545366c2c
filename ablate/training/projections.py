"""Maps between the spaces of teacher and student, trained beside a student and left behind when it is done."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ablate.training.model_parts import ModelParts
from ablate.training.seeds import seed_of
from ablate.training.trainable import Trainable

PREFIX = "projections."
"""Of the names of their weights."""


class WithProjections:
    """The weights of a training, and projections that are trained beside them."""

    def __init__(self, inner: Trainable, projections: Mapping[str, Tensor]) -> None:
        self._inner = inner
        self._projections = projections
        self.weights: Mapping[str, Tensor] = {**inner.weights, **projections}

    def seed_dropout(self, seed: int, step: int, rows: Sequence[int], lengths: Sequence[int]) -> None:
        self._inner.seed_dropout(seed, step, rows, lengths)

    def discard_grads(self) -> None:
        self._inner.discard_grads()
        for weight in self._projections.values():
            weight.grad = None

    def collect_grads(self) -> None:
        self._inner.collect_grads()

    def update_model(self) -> None:
        self._inner.update_model()

    def save(self, folder: Path) -> None:
        self._inner.save(folder)


def new_weight(student: ModelParts, name: str, shape: tuple[int, ...], width_in: int, seed: int) -> nn.Parameter:
    """-> uniform in +-1/sqrt(width_in), as nn.Linear begins; a function of the seed and the name alone.

    On the student's device, in float32 or wider.
    """
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed_of(f"{seed}/{name}")))
    like = next(student.model.parameters())
    value = (2 * uniform - 1) / math.sqrt(width_in)
    return nn.Parameter(value.to(like.device, torch.promote_types(like.dtype, torch.float32)))
