"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ablate.core import disk
from ablate.core.errors import Diverged
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, trainable
from ablate.training.adapters import Origin
from ablate.training.fused_layers import installed_kernels
from ablate.training.given import DIVERGED, PreparedRows, load_rows, load_whole, refuse_diverged, refuse_long_rows
from ablate.training.giving_way import fitted_budget, room_of
from ablate.training.holdout import AskTeacher, holdout_losses
from ablate.training.loss import Objective
from ablate.training.model_parts import split_model
from ablate.training.model_source import ModelSource
from ablate.training.ranks import ranks_of
from ablate.training.selfcheck import fused_where_sound, require_sound
from ablate.training.sharding import shard
from ablate.training.teaching import TaughtBy, asked_of_holdout, taught
from ablate.training.train import train
from ablate.training.training import Training
from ablate.training.writing_setup import with_writing, write_final_samples, writing_of

HOLDOUT = "holdout.json"
"""Losses of the held-out rows after the last step; only where the study holds rows out."""


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
        training = taught(job, training, rows, student, taught_by, room_of(job))
    writing = writing_of(training, tokenizer, ranks_of(job)) if tokenizer else None
    if writing and own_objective:
        training = with_writing(training, writing, rows.splits["holdout"])
    _note_conditions(job, training)
    training = _proven(job, training)
    budget = _trained(job, training)
    if writing:
        write_final_samples(job, writing, rows.splits)
    if rows.splits["holdout"].counts.loss_tokens:
        _write_holdout(job, training, rows, taught_by, budget)


def _trained(job: Job, training: Training) -> int:
    """Trains, and writes what came of it. -> the budget that fitted."""
    try:
        budget = train(job, training)
    except Diverged as error:
        if job.is_first:
            disk.write_json(job.out / DIVERGED, {"step": error.step, "loss": str(error.loss)})
        raise
    if job.is_first:
        training.trainable.save(job.out)
    return budget


def _proven(job: Job, training: Training) -> Training:
    """-> with layers fused where that is as exact; before its first step it was seen that a gradient can be trusted."""
    budget = fitted_budget(training, room_of(job))
    training = fused_where_sound(job, training, budget, installed_kernels(job.device))
    if job.checkpoints.latest() is None:
        require_sound(job, training, budget)
    return training


def _write_holdout(job: Job, training: Training, rows: PreparedRows, taught_by: TaughtBy | None, budget: int) -> None:
    holdout = rows.splits["holdout"]
    ask = asked_of_holdout(job, training, rows, taught_by.teachers) if taught_by else None
    losses = _holdout_losses_fitting(job, training, holdout, budget, ask)
    if job.is_first:
        disk.write_json(job.out / HOLDOUT, {**losses, **_per_byte(losses, rows), "tokens": holdout.counts.loss_tokens})


def _per_byte(losses: Mapping[str, float], rows: PreparedRows) -> Mapping[str, float]:
    """-> the class loss in bits over the bytes of the text, the same for every tokenizer."""
    if not rows.holdout_bytes:
        return {}
    nats = losses["class_loss"] * rows.splits["holdout"].counts.loss_tokens
    return {"bits_per_byte": nats / math.log(2) / rows.holdout_bytes}


def _holdout_losses_fitting(
    job: Job, training: Training, rows: TokenRows, budget: int, ask: AskTeacher | None
) -> Mapping[str, float]:
    """Out of memory, it is begun again with half the tokens a micro-batch."""
    longest = int(rows.lengths.max())
    while True:
        try:
            by, scratch = training.cutting, training.scratch
            return holdout_losses(training.student, rows, budget, job.device, ask, by, ranks_of(job), scratch)
        except torch.OutOfMemoryError:
            if budget <= longest:
                raise
        budget //= 2
        if job.device != "cpu":
            torch.cuda.empty_cache()


def _training(job: Job, rows: PreparedRows, student: ModelSource, objective: Objective, origin: Origin) -> Training:
    refuse_diverged("student", student)
    recipe: Train = job.settings.recipe
    model = load_whole(job, student)
    weights = trainable.make_trainable(model, recipe, job.settings.seed, origin)
    if job.is_sharded:
        shard(model, job.device, ranks_of(job))
    parts = split_model(model, rows.vocabulary)
    refuse_long_rows(rows, "student", parts)
    return Training(
        recipe=recipe,
        seed=job.settings.seed,
        rows=rows.splits["train"],
        student=parts,
        trainable=weights,
        objective=objective,
    )


def _note_conditions(job: Job, training: Training) -> None:
    teachers = asked_teachers.each(training.teacher)
    asked = zip(teacher_inputs(len(teachers)), map(asked_teachers.beside, teachers), strict=True)
    for name, parts in (("student", training.student), *asked):
        if parts and parts.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
