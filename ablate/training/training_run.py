"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from ablate.core import disk
from ablate.core.errors import Diverged, StageError
from ablate.data import tokens
from ablate.data.tokens import TokenRows
from ablate.feature_losses import FeatureLoss
from ablate.store.job import Job
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, trainable
from ablate.training.adapters import Origin
from ablate.training.asked_teachers import SeveralTeachers, live_outputs
from ablate.training.batches import MicroBatch, first_budget
from ablate.training.features import WithProjection, make_features
from ablate.training.holdout import AskTeacher, holdout_losses
from ablate.training.loss import Objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.model_source import ModelSource
from ablate.training.selfcheck import require_sound
from ablate.training.teacher_cache import CachedTeacher, CacheIndex, CacheNeeds, RowSplit
from ablate.training.teacher_outputs import TeacherHidden, TeacherMean, TeachersHidden
from ablate.training.train import Training, train

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


@dataclass(frozen=True)
class PreparedRows:
    """Rows as a `rows` stage leaves them."""

    splits: Mapping[RowSplit, TokenRows]
    """Those that are trained on, and those held out."""
    vocabulary: int
    """Of the tokenizer."""
    longest: int


def load_rows(job: Job) -> PreparedRows:
    """-> the rows that a stage is given."""
    folder = job.inputs["rows"] / "out"
    summary = json.loads((folder / "summary.json").read_text())
    splits: dict[RowSplit, TokenRows] = {
        "train": tokens.load(folder / "train.safetensors"),
        "holdout": tokens.load(folder / "holdout.safetensors"),
    }
    return PreparedRows(splits, int(summary["vocabulary"]), int(summary["longest"]))


def train_stage(
    job: Job,
    student: ModelSource,
    objective: Objective,
    *,
    origin: Origin,
    teachers: Sequence[GivenTeacher] = (),
    teacher_mean: TeacherMean = "probabilities",
    own_objective: Objective | None = None,
    features: FeatureLoss | None = None,
) -> None:
    """Trains, and writes the result to `job.out`: an adapter, or all weights.

    A teacher's outputs, captured before (`cache`) are used where they can stand for it; else the teacher runs beside.

    Raises Diverged, leaving diverged.json alone in `job.out`: a result too. Raises StageError where an input diverged,
    or no gradient on this device can be trusted.
    """
    rows = load_rows(job)
    training = replace(_training(job, rows, student, objective, origin), own_objective=own_objective)
    asked = [_teacher(job, training, rows, teacher, is_alone=len(teachers) == 1) for teacher in teachers]
    weights = tuple(teacher.weight for teacher in teachers)
    if asked:
        several = SeveralTeachers(tuple(asked), weights, teacher_mean)
        training = replace(training, teacher=several if len(asked) > 1 else asked[0])
    if features:
        training = _with_features(training, features)
    _note_conditions(job, training)
    if job.checkpoints.latest() is None:
        require_sound(job, training, first_budget(training.recipe.micro_batch_tokens, job.device))
    try:
        budget = train(job, training)
    except Diverged as error:
        disk.write_json(job.out / DIVERGED, {"step": error.step, "loss": str(error.loss)})
        raise
    training.trainable.save(job.out)
    holdout = rows.splits["holdout"]
    if holdout.counts.loss_tokens:
        ask = _teachers_of_holdout(job, training, rows, teachers) if teachers else None
        losses = _holdout_losses_fitting(training, holdout, budget, job.device, ask)
        disk.write_json(job.out / HOLDOUT, {**losses, "tokens": holdout.counts.loss_tokens})


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


def _with_features(training: Training, loss: FeatureLoss) -> Training:
    assert isinstance(training.teacher, ModelParts), "hidden states are one teacher's, which runs beside"
    features = make_features(loss, training.teacher, training.student, training.seed)
    if features.projection_TS is None:
        return replace(training, features=features)
    weights = WithProjection(training.trainable, features.projection_TS)
    return replace(training, features=features, trainable=weights)


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
    job: Job, rows: PreparedRows, known: ModelParts | CachedTeacher, teacher: GivenTeacher
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
    for name, parts in (("student", training.student), *zip(teacher_inputs(len(teachers)), teachers, strict=True)):
        if isinstance(parts, ModelParts) and parts.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
