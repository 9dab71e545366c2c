"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ablate.core import disk
from ablate.core.errors import Diverged, StageError
from ablate.data import tokens
from ablate.data.tokenizers import load_tokenizer
from ablate.data.tokens import TokenRows
from ablate.feature_losses import FeatureLoss
from ablate.store.job import Job
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, trainable
from ablate.training.adapters import Origin
from ablate.training.asked_teachers import OneTeacher, SeveralTeachers, live_outputs
from ablate.training.batches import MicroBatch, first_budget
from ablate.training.dual_space import DualSpaceTeacher, WithProjections, new_projections
from ablate.training.features import make_features
from ablate.training.holdout import AskTeacher, holdout_losses
from ablate.training.loss import Objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.model_source import ModelSource
from ablate.training.own_tokens_teacher import OwnTokensTeacher, Reader, require_same_rows
from ablate.training.selfcheck import require_sound
from ablate.training.span_teacher import make_span_teacher
from ablate.training.teacher_cache import CachedTeacher, CacheIndex, CacheNeeds, RowSplit
from ablate.training.teacher_outputs import TeacherHidden, TeacherMean, TeachersHidden
from ablate.training.train import Training, train
from ablate.training.writing_setup import with_writing, write_final_samples, writing_of

DIVERGED = "diverged.json"
HOLDOUT = "holdout.json"
"""Losses of the held-out rows after the last step; only where the study holds rows out."""


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


@dataclass(frozen=True)
class PreparedRows:
    """Rows as a `rows` stage leaves them."""

    splits: Mapping[RowSplit, TokenRows]
    """Those that are trained on, and those held out."""
    vocabulary: int
    """Of the tokenizer."""
    longest: int
    holdout_bytes: int | None = None
    """Of UTF-8 that the loss-bearing tokens held out stand for; None where the tokenizer does not tell."""


def load_rows(job: Job, name: str = "rows") -> PreparedRows:
    """-> the rows that a stage is given; `teacher_rows`: as a teacher with a tokenizer of its own reads them."""
    folder = job.inputs[name] / "out"
    summary = json.loads((folder / "summary.json").read_text())
    splits: dict[RowSplit, TokenRows] = {
        "train": tokens.load(folder / "train.safetensors"),
        "holdout": tokens.load(folder / "holdout.safetensors"),
    }
    return PreparedRows(splits, int(summary["vocabulary"]), int(summary["longest"]), summary.get("holdout_bytes"))


def train_stage(
    job: Job,
    student: ModelSource,
    objective: Objective,
    *,
    origin: Origin,
    taught_by: TaughtBy | None = None,
    own_objective: Objective | None = None,
    tokenizer: Any = None,
) -> None:
    """Trains, and writes the result to `job.out`: an adapter, or all weights.

    A teacher's outputs, captured before (`cache`) are used where they can stand for it; else the teacher runs beside.

    Raises Diverged, leaving diverged.json alone in `job.out`: a result too. Raises StageError where an input diverged,
    or no gradient on this device can be trusted.
    """
    rows = load_rows(job)
    training = replace(_training(job, rows, student, objective, origin), own_objective=own_objective)
    if taught_by:
        training = _taught(job, training, rows, student, taught_by)
    writing = writing_of(training, tokenizer) if tokenizer else None
    if writing and own_objective:
        training = with_writing(training, writing, rows.splits["holdout"])
    _note_conditions(job, training)
    if job.checkpoints.latest() is None:
        require_sound(job, training, first_budget(training.recipe.micro_batch_tokens, job.device))
    try:
        budget = train(job, training)
    except Diverged as error:
        disk.write_json(job.out / DIVERGED, {"step": error.step, "loss": str(error.loss)})
        raise
    training.trainable.save(job.out)
    if writing:
        write_final_samples(job, writing, rows.splits)
    if rows.splits["holdout"].counts.loss_tokens:
        _write_holdout(job, training, rows, taught_by, budget)


def _write_holdout(job: Job, training: Training, rows: PreparedRows, taught_by: TaughtBy | None, budget: int) -> None:
    holdout = rows.splits["holdout"]
    has_own_tokens = isinstance(training.teacher, OwnTokensTeacher)  # and so no distribution to compare with
    known = taught_by if not has_own_tokens else None
    ask = _teachers_of_holdout(job, training, rows, known.teachers) if known else None
    losses = _holdout_losses_fitting(training, holdout, budget, job.device, ask)
    disk.write_json(job.out / HOLDOUT, {**losses, **_per_byte(losses, rows), "tokens": holdout.counts.loss_tokens})


def _per_byte(losses: Mapping[str, float], rows: PreparedRows) -> Mapping[str, float]:
    """-> the class loss in bits over the bytes of the text, the same for every tokenizer."""
    if not rows.holdout_bytes:
        return {}
    nats = losses["class_loss"] * rows.splits["holdout"].counts.loss_tokens
    return {"bits_per_byte": nats / math.log(2) / rows.holdout_bytes}


def _holdout_losses_fitting(
    training: Training, rows: TokenRows, budget: int, device: str, ask: AskTeacher | None
) -> Mapping[str, float]:
    """Out of memory, it is begun again with half the tokens a micro-batch."""
    longest = int(rows.lengths.max())
    while True:
        try:
            return holdout_losses(training.student, rows, budget, device, ask, training.cutting)
        except torch.OutOfMemoryError:
            if budget <= longest:
                raise
        budget //= 2
        if device != "cpu":
            torch.cuda.empty_cache()


def load_parts(job: Job, name: str, source: ModelSource, rows: PreparedRows) -> ModelParts:
    """-> a model that nothing is trained of. Raises StageError when it diverged or the rows are too long for it."""
    _refuse_diverged(name, source)
    parts = split_model(source.load(job.settings.dtype, job.device, job.checks).model, rows.vocabulary)
    _refuse_long_rows(rows, name, parts)
    return parts


def _training(job: Job, rows: PreparedRows, student: ModelSource, objective: Objective, origin: Origin) -> Training:
    _refuse_diverged("student", student)
    recipe: Train = job.settings.recipe
    model = student.load(job.settings.dtype, job.device, job.checks).model
    weights = trainable.make_trainable(model, recipe, job.settings.seed, origin)
    parts = split_model(model, rows.vocabulary)
    _refuse_long_rows(rows, "student", parts)
    return Training(
        recipe=recipe,
        seed=job.settings.seed,
        rows=rows.splits["train"],
        student=parts,
        trainable=weights,
        objective=objective,
    )


def _teacher(
    job: Job, training: Training, rows: PreparedRows, given: GivenTeacher, *, is_alone: bool
) -> ModelParts | CachedTeacher:
    _refuse_diverged(given.name, given.source)
    if given.cache:
        index, dtype = CacheIndex(given.cache), job.settings.dtype
        needs = CacheNeeds(given.source.made_by, dtype, rows.splits, training.objective, training.student.head)
        why = index.misfit(needs, may_be_vectors=is_alone)
        if why is None:
            job.notes[given.name] = f"its answers were read from {given.cache.parent.name}"
            return CachedTeacher(index, rows.splits, job.device)
        job.notes[given.name] = f"ran beside: {why}"
    return load_parts(job, given.name, given.source, rows)


def _taught(job: Job, training: Training, rows: PreparedRows, student: ModelSource, by: TaughtBy) -> Training:
    """-> the training beside its teachers, or what was kept of them."""
    if "teacher_rows" in job.inputs:
        return _with_own_tokens(job, training, rows, student, by.teachers[0].source)
    asked = tuple(_teacher(job, training, rows, one, is_alone=len(by.teachers) == 1) for one in by.teachers)
    weights = tuple(one.weight for one in by.teachers)
    teacher = asked[0] if len(asked) == 1 else SeveralTeachers(asked, weights, by.mean)
    training = replace(training, teacher=teacher)
    return _with_features(training, by.features) if by.features else training


def _with_features(training: Training, loss: FeatureLoss) -> Training:
    assert isinstance(training.teacher, ModelParts), "hidden states are one teacher's, which runs beside"
    features = make_features(loss, training.teacher, training.student, training.seed)
    trained = features.trained
    weights = WithProjections(training.trainable, trained) if trained else training.trainable
    return replace(training, features=features, trainable=weights)


def _with_own_tokens(
    job: Job, training: Training, rows: PreparedRows, student: ModelSource, teacher: ModelSource
) -> Training:
    """-> the training beside a teacher that reads the rows in its own tokens."""
    own = load_rows(job, "teacher_rows")
    parts, train_rows = load_parts(job, "teacher", teacher, own), own.splits["train"]
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


def _teachers_of_holdout(
    job: Job, training: Training, rows: PreparedRows, teachers: Sequence[GivenTeacher]
) -> AskTeacher:
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
        return lambda batch: known.hidden_outputs("holdout", rows.splits["holdout"], batch)
    live = known if isinstance(known, ModelParts) else load_parts(job, teacher.name, teacher.source, rows)
    return lambda batch: live_outputs(live, batch)


def _refuse_diverged(name: str, source: ModelSource) -> None:
    for folder in source.adapters:
        if (folder / DIVERGED).is_file():
            raise StageError(f"its {name} diverged ({folder.parent.name}), so there is nothing to go on from")


def _refuse_long_rows(rows: PreparedRows, name: str, parts: ModelParts) -> None:
    limit = getattr(parts.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and rows.longest > limit:
        raise StageError(
            f"the longest row has {rows.longest} tokens and the {name} ({type(parts.model).__name__}) has "
            f"{limit} positions: set data.max_length to {limit} or less"
        )


def _note_conditions(job: Job, training: Training) -> None:
    teachers = asked_teachers.each(training.teacher)
    for name, one in (("student", training.student), *zip(teacher_inputs(len(teachers)), teachers, strict=True)):
        parts = one.parts if isinstance(one, OwnTokensTeacher) else one
        if isinstance(parts, ModelParts) and parts.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
