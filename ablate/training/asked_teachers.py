"""Who is asked in a training: a teacher beside the student, what it said when it was asked before, or several."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ablate.data.tokens import TokenRows
from ablate.training.batches import MicroBatch
from ablate.training.loss import TeacherOutputs
from ablate.training.model_parts import ModelParts
from ablate.training.teacher_cache import CachedTeacher, RowSplit
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeacherMean, TeachersHidden

OneTeacher: TypeAlias = ModelParts | CachedTeacher


@dataclass(frozen=True, eq=False)
class SeveralTeachers:
    """Teachers of one vocabulary, each beside the student or by its kept hidden states."""

    teachers: tuple[OneTeacher, ...]
    weights: tuple[float, ...]
    mean: TeacherMean


AskedTeacher: TypeAlias = OneTeacher | SeveralTeachers


def each(teacher: AskedTeacher | None) -> tuple[OneTeacher, ...]:
    """-> the teachers, one by one; none where there is none."""
    if teacher is None:
        return ()
    return teacher.teachers if isinstance(teacher, SeveralTeachers) else (teacher,)


def live(teacher: AskedTeacher | None) -> Iterator[ModelParts]:
    """-> those that run beside the student."""
    yield from (one for one in each(teacher) if isinstance(one, ModelParts))


def kept(teacher: AskedTeacher | None) -> Iterator[CachedTeacher]:
    """-> those whose outputs were kept."""
    yield from (one for one in each(teacher) if isinstance(one, CachedTeacher))


def outputs(teacher: AskedTeacher | None, split: RowSplit, rows: TokenRows, batch: MicroBatch) -> TeacherOutputs:
    """-> what is known of the teacher about a micro-batch."""
    if teacher is None:
        return NoTeacher()
    if isinstance(teacher, SeveralTeachers):
        hidden = tuple(_hidden_outputs(one, split, rows, batch) for one in teacher.teachers)
        return TeachersHidden(hidden, teacher.weights, teacher.mean)
    return teacher.outputs(split, rows, batch) if isinstance(teacher, CachedTeacher) else live_outputs(teacher, batch)


def _hidden_outputs(teacher: OneTeacher, split: RowSplit, rows: TokenRows, batch: MicroBatch) -> TeacherHidden:
    if isinstance(teacher, CachedTeacher):
        return teacher.hidden_outputs(split, rows, batch)
    return live_outputs(teacher, batch)


@torch.no_grad()
def live_outputs(teacher: ModelParts, batch: MicroBatch) -> TeacherHidden:
    """-> a live teacher's outputs of a micro-batch."""
    return TeacherHidden(teacher.hidden(batch.ids_BT, batch.positions_M), teacher.head)
