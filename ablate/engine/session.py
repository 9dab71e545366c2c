"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate import disk
from ablate.data import tokens
from ablate.data.tokens import TokenRows
from ablate.engine import trainable
from ablate.engine.adapters import Origin
from ablate.engine.batches import first_budget
from ablate.engine.loss import Objective
from ablate.engine.models import load_merged
from ablate.engine.split import Split, split
from ablate.engine.train import Training, held_out, train
from ablate.engine.vectors import Cache, Part
from ablate.errors import Diverged, StageError
from ablate.job import Job
from ablate.spec.schema import Train

DIVERGED = "diverged.json"
HOLDOUT = "holdout.json"
"""Losses of the held-out rows after the last step; only where the study holds rows out."""


@dataclass(frozen=True)
class Source:
    """A model as a stage is given it: a folder, and the trainings on top of it, first to last."""

    folder: Path
    adapters: Sequence[Path] = ()
    trust_remote_code: bool = False

    def load(self, dtype: str, device: str) -> Any:
        return load_merged(self.folder, self.adapters, dtype, device, trust_remote_code=self.trust_remote_code).model


def run(
    job: Job,
    rows_folder: Path,
    student: Source,
    objective: Objective,
    *,
    origin: Origin,
    teacher: Source | None = None,
    cache: Path | None = None,
) -> None:
    """Trains, and writes the result to `job.out`: an adapter, or all weights.

    What the teacher said before (`cache`) is used where it can stand for it; else the teacher runs beside.

    Raises Diverged, leaving diverged.json alone in `job.out`: a result too. Raises StageError where an input diverged.
    """
    _refuse_diverged("student", student)
    if teacher:
        _refuse_diverged("teacher", teacher)
    summary = json.loads((rows_folder / "summary.json").read_text())
    parts = load_parts(rows_folder)
    training = _training(job, parts["train"], int(summary["vocabulary"]), student, objective, origin)
    if teacher:
        training = replace(training, teacher=_teacher(job, training, parts, int(summary["vocabulary"]), teacher, cache))
    for name, part in _parts(training).items():
        _refuse_long_rows(summary, name, part)
    _note(job, training)
    try:
        train(job, training)
    except Diverged as error:
        disk.write_json(job.out / DIVERGED, {"step": error.step, "loss": str(error.loss)})
        raise
    training.trainable.save(job.out)
    holdout = parts["holdout"]
    if holdout.counts.loss_tokens:
        budget = first_budget(job.settings.recipe.micro_batch_tokens, job.device)
        losses = held_out(training, holdout, budget, job.device)
        disk.write_json(job.out / HOLDOUT, {**losses, "tokens": holdout.counts.loss_tokens})


def load_split(job: Job, name: str, of: Source) -> Split:
    """-> a model that nothing is trained of. Raises StageError when it diverged or the rows are too long for it."""
    _refuse_diverged(name, of)
    summary = json.loads((job.inputs["rows"] / "out/summary.json").read_text())
    parts = split(of.load(job.settings.dtype, job.device), int(summary["vocabulary"]))
    _refuse_long_rows(summary, name, parts)
    return parts


def _training(
    job: Job,
    rows: TokenRows,
    vocabulary: int,
    student: Source,
    objective: Objective,
    origin: Origin,
) -> Training:
    recipe: Train = job.settings.recipe
    model = student.load(job.settings.dtype, job.device)
    weights = trainable.make(model, recipe, job.settings.seed, origin)
    return Training(
        recipe=recipe,
        seed=job.settings.seed,
        rows=rows,
        student=split(model, vocabulary),
        trainable=weights,
        objective=objective,
    )


def load_parts(rows_folder: Path) -> Mapping[Part, TokenRows]:
    """-> the rows that are trained on, and those held out."""
    return {
        "train": tokens.load(rows_folder / "train.safetensors"),
        "holdout": tokens.load(rows_folder / "holdout.safetensors"),
    }


def _teacher(
    job: Job,
    training: Training,
    parts: Mapping[Part, TokenRows],
    vocabulary: int,
    teacher: Source,
    cache: Path | None,
) -> Split | Cache:
    if cache:
        found = Cache(cache)
        why = found.misfit(training.objective, training.student.head, parts)
        if why is None:
            job.notes["teacher"] = f"its answers were read from {cache.parent.name}"
            return found.open(parts)
        job.notes["teacher"] = f"ran beside: {why}"
    return split(teacher.load(job.settings.dtype, job.device), vocabulary)


def _refuse_diverged(name: str, source: Source) -> None:
    for folder in source.adapters:
        if (folder / DIVERGED).is_file():
            raise StageError(f"its {name} diverged ({folder.parent.name}), so there is nothing to go on from")


def _refuse_long_rows(summary: Mapping[str, Any], name: str, part: Split) -> None:
    limit = getattr(part.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and summary["longest"] > limit:
        raise StageError(
            f"the longest row has {summary['longest']} tokens and the {name} ({type(part.model).__name__}) has "
            f"{limit} positions: set data.max_length to {limit} or less"
        )


def _parts(training: Training) -> dict[str, Split]:
    """-> the models that run."""
    teacher = training.teacher
    return {"student": training.student} | ({"teacher": teacher} if isinstance(teacher, Split) else {})


def _note(job: Job, training: Training) -> None:
    for name, part in _parts(training).items():
        if part.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
