"""Who is asked in a training: a teacher beside the student, what it said when it was asked before, or several."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ablate.training.batches import MicroBatch
from ablate.training.dual_space import DualSpaceTeacher
from ablate.training.loss import TeacherOutputs
from ablate.training.model_parts import ModelParts
from ablate.training.own_tokens import OwnTokens
from ablate.training.span_teacher import SpanTeacher
from ablate.training.teacher_cache import CachedTeacher, RowSplit
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeacherMean, TeachersHidden

OneTeacher: TypeAlias = ModelParts | CachedTeacher | SpanTeacher | DualSpaceTeacher


@dataclass(frozen=True, eq=False)
class SeveralTeachers:
    """Teachers of the student's vocabulary, each beside the student or by its kept hidden states."""

    teachers: tuple[ModelParts | CachedTeacher, ...]
    weights: tuple[float, ...]
    mean: TeacherMean


AskedTeacher: TypeAlias = OneTeacher | SeveralTeachers


def each(teacher: AskedTeacher | None) -> tuple[OneTeacher, ...]:
    """-> the teachers, one by one; none where there is none."""
    if teacher is None:
        return ()
    return teacher.teachers if isinstance(teacher, SeveralTeachers) else (teacher,)


def live(teacher: AskedTeacher | None) -> Iterator[ModelParts]:
    """-> those that read the student's rows beside it."""
    yield from (one for one in each(teacher) if isinstance(one, ModelParts))


def kept(teacher: AskedTeacher | None) -> Iterator[CachedTeacher]:
    """-> those whose outputs were kept."""
    yield from (one for one in each(teacher) if isinstance(one, CachedTeacher))


def expect(teacher: AskedTeacher | None, cuts_of: Callable[[int], Iterable[Sequence[int]]], step: int) -> None:
    """Has what was kept read ahead: the micro-batches of a step, unless they are expected already, and of the next."""
    for one in kept(teacher):
        for coming in (step, step + 1) if one.is_idle else (step + 1,):
            one.expect("train", cuts_of(coming))


@contextlib.contextmanager
def reading(teacher: AskedTeacher | None) -> Iterator[None]:
    """Ends what reads ahead in the end."""
    try:
        yield
    finally:
        for one in kept(teacher):
            one.close()


def beside(teacher: OneTeacher) -> ModelParts | None:
    """-> the model that runs beside the student, in whosever tokens; None where its outputs were kept."""
    if isinstance(teacher, CachedTeacher):
        return None
    return teacher.parts if isinstance(teacher, SpanTeacher | DualSpaceTeacher) else teacher


def outputs(
    teacher: AskedTeacher | None, split: RowSplit, batch: MicroBatch, own: OwnTokens | None = None
) -> TeacherOutputs:
    """-> what is known of the teacher about a micro-batch; `own`: where the student wrote it."""
    if teacher is None:
        return NoTeacher()
    if isinstance(teacher, SeveralTeachers):
        hidden = tuple(_hidden_outputs(one, split, batch) for one in teacher.teachers)
        return TeachersHidden(hidden, teacher.weights, teacher.mean, own)
    if isinstance(teacher, CachedTeacher):
        return teacher.outputs(split, batch)
    if isinstance(teacher, ModelParts):
        return live_outputs(teacher, batch)._replace(own=own)
    return teacher.outputs(batch)


def all_logits(teacher: AskedTeacher, batch: MicroBatch) -> TeacherHidden | TeachersHidden:
    """-> what teachers that all run beside the student say of a micro-batch, whose logits can be had."""
    hidden = tuple(live_outputs(one, batch) for one in live(teacher))
    if isinstance(teacher, SeveralTeachers):
        return TeachersHidden(hidden, teacher.weights, teacher.mean)
    (alone,) = hidden
    return alone


def _hidden_outputs(teacher: ModelParts | CachedTeacher, split: RowSplit, batch: MicroBatch) -> TeacherHidden:
    if isinstance(teacher, CachedTeacher):
        return teacher.hidden_outputs(split, batch)
    return live_outputs(teacher, batch)


@torch.no_grad()
def live_outputs(teacher: ModelParts, batch: MicroBatch) -> TeacherHidden:
    """-> a live teacher's outputs of a micro-batch."""
    return TeacherHidden(teacher.hidden(batch), teacher.head)
