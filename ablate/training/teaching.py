"""What a student is taught by: the teachers that a stage is given, loaded or read from what was kept of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ablate.data.tokenizers import load_tokenizer
from ablate.feature_losses import FeatureLoss
from ablate.store.job import Job
from ablate.store.sizes import model_sizes
from ablate.training import asked_teachers
from ablate.training.asked_teachers import OneTeacher, SeveralTeachers, live_outputs
from ablate.training.batches import MicroBatch
from ablate.training.dual_space import DualSpaceTeacher, new_projections
from ablate.training.features import make_features
from ablate.training.given import PreparedRows, load_parts, load_rows, refuse_diverged
from ablate.training.giving_way import must_wait
from ablate.training.holdout import AskTeacher
from ablate.training.model_parts import ModelParts
from ablate.training.model_source import ModelSource
from ablate.training.own_tokens_teacher import OwnTokensTeacher, Reader, require_same_rows
from ablate.training.projections import WithProjections
from ablate.training.span_teacher import make_span_teacher
from ablate.training.teacher_cache import CachedTeacher, CacheIndex, CacheNeeds
from ablate.training.teacher_outputs import TeacherHidden, TeacherMean, TeachersHidden
from ablate.training.training import Training


class GivenTeacher(NamedTuple):
    """A teacher as a stage is given it."""

    name: str
    """Of the input."""
    source: ModelSource
    cache: Path | None = None
    """Its outputs, captured before."""
    weight: float = 1.0


class TaughtBy(NamedTuple):
    """What a student learns from beside the rows."""

    teachers: Sequence[GivenTeacher]
    mean: TeacherMean = "probabilities"
    """Of several teachers."""
    features: FeatureLoss | None = None
    """Compares hidden states with those of the one teacher."""


def taught(
    job: Job, training: Training, rows: PreparedRows, student: ModelSource, by: TaughtBy, room: int | None
) -> Training:
    """-> the training beside its teachers, or what was kept of them.

    `room`: bytes that the stage may hold of its card; None on a CPU.
    """
    if "teacher_rows" in job.inputs:
        return _with_own_tokens(job, training, rows, student, by.teachers[0].source, room)
    kept = [_kept(job, training, rows, one, is_alone=len(by.teachers) == 1) for one in by.teachers]
    known = replace(training, teacher=SeveralTeachers(tuple(filter(None, kept)), (), by.mean))
    coming = [one.source for one, cache in zip(by.teachers, kept, strict=True) if cache is None]
    is_waiting = _must_wait(job, known, coming, room)
    asked = tuple(
        cache or load_parts(job, one.name, one.source, rows, is_waiting=is_waiting)
        for one, cache in zip(by.teachers, kept, strict=True)
    )
    weights = tuple(one.weight for one in by.teachers)
    teacher = asked[0] if len(asked) == 1 else SeveralTeachers(asked, weights, by.mean)
    training = replace(training, teacher=teacher)
    return _with_features(training, by.features) if by.features else training


def _must_wait(job: Job, training: Training, coming: Sequence[ModelSource], room: int | None) -> bool:
    """Whether the layers of teachers that are to be loaded have to wait in this machine's memory."""
    if job.is_sharded or job.layer_devices:  # several cards share them instead
        return False
    sizes = (model_sizes(one.folder) for one in coming)
    known = zip(coming, sizes, strict=True)
    return must_wait(training, [sizes._replace(quantize=one.quantize) for one, sizes in known if sizes], room)


def _kept(
    job: Job, training: Training, rows: PreparedRows, given: GivenTeacher, *, is_alone: bool
) -> CachedTeacher | None:
    """-> what was kept of a teacher; None where it is to be loaded."""
    refuse_diverged(given.name, given.source)
    if given.cache:
        index, dtype = CacheIndex(given.cache), job.settings.dtype
        needs = CacheNeeds(given.source.made_by, dtype, rows.splits, training.objective, training.student.head)
        why = index.misfit(needs, may_be_vectors=is_alone)
        if why is None:
            job.notes[given.name] = f"its answers were read from {given.cache.parent.name}"
            return CachedTeacher(index, rows.splits, job.device)
        job.notes[given.name] = f"ran beside: {why}"
    return None


def _with_features(training: Training, loss: FeatureLoss) -> Training:
    assert isinstance(training.teacher, ModelParts), "hidden states are one teacher's, which runs beside"
    features = make_features(loss, training.teacher, training.student, training.seed)
    trained = features.trained
    weights = WithProjections(training.trainable, trained) if trained else training.trainable
    return replace(training, features=features, trainable=weights)


def _with_own_tokens(
    job: Job, training: Training, rows: PreparedRows, student: ModelSource, teacher: ModelSource, room: int | None
) -> Training:
    """-> the training beside a teacher that reads the rows in its own tokens."""
    own, is_waiting = load_rows(job, "teacher_rows"), _must_wait(job, training, [teacher], room)
    parts, train_rows = load_parts(job, "teacher", teacher, own, is_waiting=is_waiting), own.splits["train"]
    if training.objective.kd.needs == "rows":
        require_same_rows(training.rows, train_rows)
        maps = new_projections(training.student, parts, training.seed)
        beside = DualSpaceTeacher(parts, train_rows, training.rows, training.student, maps)
        job.notes["teacher"] = "ran beside, in its own tokens"
        return replace(training, teacher=beside, trainable=WithProjections(training.trainable, maps))
    readers = [_reader(*side) for side in ((rows, student), (own, teacher))]
    aligned = make_span_teacher(parts, *readers)
    job.notes["teacher"] = f"ran beside, in its own tokens: {aligned.shares}"
    return replace(training, teacher=aligned)


def _reader(rows: PreparedRows, model: ModelSource) -> Reader:
    tokenizer = load_tokenizer(model.tokenizer or model.folder, model.trust_remote_code)
    return Reader(rows.splits["train"], tokenizer, rows.vocabulary)


def asked_of_holdout(
    job: Job, training: Training, rows: PreparedRows, teachers: Sequence[GivenTeacher]
) -> AskTeacher | None:
    """-> what is asked about held-out rows; None of a teacher with other tokens, which are not compared one by one."""
    if isinstance(training.teacher, OwnTokensTeacher):
        return None
    known = zip(asked_teachers.each(training.teacher), teachers, strict=True)
    asks = [_teacher_of_holdout(job, rows, one, teacher) for one, teacher in known]
    if len(asks) == 1:
        return asks[0]
    weights = tuple(teacher.weight for teacher in teachers)
    return lambda batch: TeachersHidden(tuple(ask(batch) for ask in asks), weights, "probabilities")


def _teacher_of_holdout(
    job: Job, rows: PreparedRows, known: OneTeacher, teacher: GivenTeacher
) -> Callable[[MicroBatch], TeacherHidden]:
    """-> what is asked about held-out rows: what was kept of them, else the teacher, loaded for it if need be."""
    if isinstance(known, CachedTeacher) and known.index.has_holdout:
        return lambda batch: known.hidden_outputs("holdout", batch)
    live = known if isinstance(known, ModelParts) else load_parts(job, teacher.name, teacher.source, rows)
    return lambda batch: live_outputs(live, batch)
