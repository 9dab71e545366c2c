"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.core import disk
from ablate.core.errors import Diverged, StageError
from ablate.data import tokens
from ablate.data.tokenizers import load_tokenizer
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.study.answer_settings import Sampling
from ablate.study.training_recipes import Train
from ablate.training import trainable, written_files
from ablate.training.adapters import Origin
from ablate.training.batches import first_budget
from ablate.training.decode_loop import Writer, require_room, write_answers
from ablate.training.dual_space import DualSpaceTeacher, WithProjections, new_projections
from ablate.training.holdout import AskTeacher, holdout_losses
from ablate.training.loss import Objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.model_source import ModelSource
from ablate.training.on_policy import NUM_SAMPLED_PROMPTS, Writing
from ablate.training.own_tokens_teacher import OwnTokensTeacher, Reader, require_same_rows
from ablate.training.prompts import Prompt, end_tokens, prompt_ids
from ablate.training.selfcheck import require_sound
from ablate.training.span_teacher import make_span_teacher
from ablate.training.teacher_cache import CachedTeacher, CacheIndex, CacheNeeds, RowSplit
from ablate.training.token_draws import Draws
from ablate.training.train import Training, live_outputs, train

DIVERGED = "diverged.json"
FINAL_SAMPLES = "final_samples.jsonl"
HOLDOUT = "holdout.json"
"""Losses of the held-out rows after the last step; only where the study holds rows out."""


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
    teacher: ModelSource | None = None,
    cache: Path | None = None,
    own_objective: Objective | None = None,
    tokenizer: Any = None,
) -> None:
    """Trains, and writes the result to `job.out`: an adapter, or all weights.

    The teacher's outputs, captured before (`cache`) are used where they can stand for it; else the teacher runs beside.

    Raises Diverged, leaving diverged.json alone in `job.out`: a result too. Raises StageError where an input diverged,
    or no gradient on this device can be trusted.
    """
    rows = load_rows(job)
    training = replace(_training(job, rows, student, objective, origin), own_objective=own_objective)
    if teacher and "teacher_rows" in job.inputs:
        training = _with_own_tokens(job, training, rows, student, teacher)
    elif teacher:
        training = replace(training, teacher=_teacher(job, training, rows, teacher, cache))
    writing = _writing(training, tokenizer) if tokenizer else None
    if writing and own_objective:
        training = replace(training, writing=writing, holdout=rows.splits["holdout"])
        _require_prompts(training)
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
        _write_final_samples(job, writing, rows)
    if rows.splits["holdout"].counts.loss_tokens:
        _write_holdout(job, training, rows, teacher, budget)


def _write_holdout(job: Job, training: Training, rows: PreparedRows, teacher: ModelSource | None, budget: int) -> None:
    holdout = rows.splits["holdout"]
    has_own_tokens = isinstance(training.teacher, OwnTokensTeacher)  # and so no distribution to compare with
    ask = _teacher_of_holdout(job, training, rows, teacher) if teacher and not has_own_tokens else None
    losses = _holdout_losses_fitting(training, holdout, budget, job.device, ask)
    disk.write_json(job.out / HOLDOUT, {**losses, **_per_byte(losses, rows), "tokens": holdout.counts.loss_tokens})


def _per_byte(losses: Mapping[str, float], rows: PreparedRows) -> Mapping[str, float]:
    """-> the class loss in bits over the bytes of the text, the same for every tokenizer."""
    if not rows.holdout_bytes:
        return {}
    nats = losses["class_loss"] * rows.splits["holdout"].counts.loss_tokens
    return {"bits_per_byte": nats / math.log(2) / rows.holdout_bytes}


def _writing(training: Training, tokenizer: Any) -> Writing:
    recipe: Any = training.recipe
    beside = training.teacher if recipe.answers == "mixed" else None
    teacher = beside if isinstance(beside, ModelParts) else None
    models = [parts.model for parts in (training.student, teacher) if parts]
    ends = end_tokens(training.rows, tokenizer, models)
    writer = Writer(training.student, ends, teacher)
    return Writing(recipe, training.seed, training.num_steps, writer, tokenizer.decode)


def _require_prompts(training: Training) -> None:
    """Raises StageError, before anything is trained, where a prompt or its answer is too long for a model, or empty."""
    rows = training.rows
    asked = sorted(np.flatnonzero(rows.num_loss).tolist(), key=lambda row: len(prompt_ids(rows, row)))
    prompts = [Prompt(row, 0, prompt_ids(rows, row)) for row in (*asked[:1], *asked[-1:])]
    teacher = training.teacher if isinstance(training.teacher, ModelParts) else None
    assert training.writing is not None
    for parts in filter(None, (training.student, teacher)):
        require_room(Writer(parts, frozenset()), prompts, training.writing.recipe.sampling)


def _write_final_samples(job: Job, writing: Writing, rows: PreparedRows) -> None:
    """The trained student's likeliest answers to the first prompts that are held out, or else trained on."""
    split: RowSplit = "holdout" if rows.splits["holdout"].counts.loss_tokens else "train"
    chosen = rows.splits[split]
    asked = [row for row in range(len(chosen)) if chosen.num_loss[row]][:NUM_SAMPLED_PROMPTS]
    prompts = [Prompt(row, 0, prompt_ids(chosen, row)) for row in asked]
    greedy = Sampling(temperature=0, max_new_tokens=writing.recipe.sampling.max_new_tokens)
    answers = write_answers(replace(writing.writer, teacher=None), prompts, greedy, Draws(writing.seed, 0))
    records = [
        {
            "split": split,
            "row": answer.prompt.row,
            "prompt": writing.text(answer.prompt.ids),
            "answer": writing.text(answer.ids),
            "num_tokens": len(answer.ids),
            "ended": answer.ended,
        }
        for answer in answers
    ]
    written_files.write_lines(job.out / FINAL_SAMPLES, records)


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
    job: Job, training: Training, rows: PreparedRows, teacher: ModelSource, cache: Path | None
) -> ModelParts | CachedTeacher:
    _refuse_diverged("teacher", teacher)
    if cache:
        index, dtype = CacheIndex(cache), job.settings.dtype
        why = index.misfit(CacheNeeds(teacher.made_by, dtype, rows.splits, training.objective, training.student.head))
        if why is None:
            job.notes["teacher"] = f"its answers were read from {cache.parent.name}"
            return CachedTeacher(index, rows.splits, job.device)
        job.notes["teacher"] = f"ran beside: {why}"
    return load_parts(job, "teacher", teacher, rows)


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


def _teacher_of_holdout(job: Job, training: Training, rows: PreparedRows, teacher: ModelSource) -> AskTeacher:
    """-> what is asked about held-out rows: what was kept of them, else the teacher, loaded for it if need be."""
    known = training.teacher
    if isinstance(known, CachedTeacher) and known.index.has_holdout:
        return lambda batch: known.hidden_outputs("holdout", rows.splits["holdout"], batch)
    live = known if isinstance(known, ModelParts) else load_parts(job, "teacher", teacher, rows)
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
    teacher = training.teacher.parts if isinstance(training.teacher, OwnTokensTeacher) else training.teacher
    for name, parts in (("student", training.student), ("teacher", teacher)):
        if isinstance(parts, ModelParts) and parts.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
