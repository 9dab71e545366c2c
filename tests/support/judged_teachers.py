"""Teachers of every kind at real shapes on the meta device, beside a student that is trained."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.data.tokens import TokenRows
from ablate.losses.spans import Common
from ablate.training.asked_teachers import SeveralTeachers
from ablate.training.dual_space import QUERY, TO_STUDENT, TO_TEACHER, DualSpaceTeacher
from ablate.training.head import Head
from ablate.training.model_parts import ModelParts
from ablate.training.projections import PREFIX
from ablate.training.span_teacher import SpanTeacher
from ablate.training.teacher_cache import CachedTeacher


class KeptOnMeta(CachedTeacher):
    """A cache of one form, whose numbers are not there."""

    def __init__(self, form: str, rows: TokenRows, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]], head: Any):
        self.index = SimpleNamespace(record={"form": form}, out=None)  # type: ignore[assignment]
        self._rows, self._tensors, self.head = rows, tensors, head

    @property
    def token_bytes(self):
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._tensors.values())

    def _read(self, split, batch):
        num = int(sum(self._rows.num_loss[row] for row in batch.rows))
        return {
            name: torch.empty(num, *shape, dtype=dtype, device="meta") for name, (shape, dtype) in self._tensors.items()
        }


def kept(form: str, rows: TokenRows, student: ModelParts, teacher_width: int, k: int = 64) -> KeptOnMeta:
    """-> what was kept of a teacher of bfloat16."""
    wide, vocabulary = torch.float32, student.head.vocabulary
    tensors = {
        "vector": {"vector": ((student.width,), wide), "entropy": ((), torch.float64)},
        "hidden": {"hidden": ((teacher_width,), torch.bfloat16)},
        "top_k": {
            "ids_Mk": ((k,), torch.int32),
            "logp_Mk": ((k,), torch.float16),
            **dict.fromkeys(("rest_M", "entropy_M", "kl_error_M"), ((), wide)),
        },
    }[form]
    weight = torch.empty(vocabulary, teacher_width, dtype=torch.bfloat16, device="meta")
    return KeptOnMeta(form, rows, tensors, Head(weight, vocabulary) if form == "hidden" else None)


def several(*teachers: ModelParts, mean: str) -> SeveralTeachers:
    return SeveralTeachers(teachers, (1 / len(teachers),) * len(teachers), mean)  # type: ignore[arg-type]


def in_own_tokens(teacher: ModelParts, student: ModelParts, rows: TokenRows, loss: str) -> Any:
    """-> a teacher that reads each row in as many tokens, each of which is a span; half of all tokens are common."""
    if loss == "dskd":
        return DualSpaceTeacher(teacher, rows, rows, student, _projections(student.width, teacher.width))
    ids_K = torch.empty(student.head.vocabulary // 2, dtype=torch.int64, device="meta")
    aligned = SimpleNamespace(row=lambda row: _each_token(int(rows.num_loss[row])))
    return SpanTeacher(teacher, rows, rows, aligned, Common(ids_K, ids_K))  # type: ignore[arg-type]


def _projections(ours: int, theirs: int) -> dict[str, nn.Parameter]:
    """-> as `dual_space.new_projections` has them, without numbers."""
    shapes = {QUERY: (2 * theirs, 2 * ours), TO_STUDENT: (ours, theirs), TO_TEACHER: (theirs, ours)}
    parts = {"weight": lambda shape: shape, "bias": lambda shape: shape[:1]}
    return {
        f"{PREFIX}{name}.{part}": nn.Parameter(torch.empty(cut(shape), device="meta"))
        for name, shape in shapes.items()
        for part, cut in parts.items()
    }


def _each_token(num: int) -> np.ndarray:
    begins = np.arange(num)
    return np.stack([begins, begins + 1, begins, begins + 1], 1)
