"""From a stage's inputs to a finished training: models loaded, prepared, trained, the result written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
        return load_merged(
            self.folder, self.adapters, dtype, device, trust_remote_code=self.trust_remote_code
        ).model


def run(
    job: Job,
    rows_folder: Path,
    student: Source,
    objective: Objective,
    *,
    origin: Origin,
    teacher: Source | None = None,
) -> None:
    """Trains, and writes the result to `job.out`: an adapter, or all weights.

    Raises Diverged, leaving diverged.json alone in `job.out`: a result too. Raises StageError where an input diverged.
    """
    _refuse_diverged("student", student)
    if teacher:
        _refuse_diverged("teacher", teacher)
    summary = json.loads((rows_folder / "summary.json").read_text())
    rows = tokens.load(rows_folder / "train.safetensors")
    training = _training(job, rows, int(summary["vocabulary"]), student, objective, origin, teacher)
    _refuse_long_rows(summary, training)
    _note(job, training)
    try:
        train(job, training)
    except Diverged as error:
        disk.write_json(job.out / DIVERGED, {"step": error.step, "loss": str(error.loss)})
        raise
    training.trainable.save(job.out)
    holdout = tokens.load(rows_folder / "holdout.safetensors")
    if holdout.counts.loss_tokens:
        budget = first_budget(job.settings.recipe.micro_batch_tokens, job.device)
        losses = held_out(training, holdout, budget, job.device)
        disk.write_json(job.out / HOLDOUT, {**losses, "tokens": holdout.counts.loss_tokens})


def _training(
    job: Job,
    rows: TokenRows,
    vocabulary: int,
    student: Source,
    objective: Objective,
    origin: Origin,
    teacher: Source | None,
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
        teacher=split(teacher.load(job.settings.dtype, job.device), vocabulary) if teacher else None,
    )


def _refuse_diverged(name: str, source: Source) -> None:
    for folder in source.adapters:
        if (folder / DIVERGED).is_file():
            raise StageError(f"its {name} diverged ({folder.parent.name}), so there is nothing to go on from")


def _refuse_long_rows(summary: dict[str, Any], training: Training) -> None:
    for name, part in _parts(training).items():
        limit = getattr(part.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and summary["longest"] > limit:
            raise StageError(
                f"the longest row has {summary['longest']} tokens and the {name} ({type(part.model).__name__}) has "
                f"{limit} positions: set data.max_length to {limit} or less"
            )


def _parts(training: Training) -> dict[str, Split]:
    return {"student": training.student} | ({"teacher": training.teacher} if training.teacher else {})


def _note(job: Job, training: Training) -> None:
    for name, part in _parts(training).items():
        if part.head.weight is None:
            job.notes[f"{name} head"] = "its logits are made whole: body and head of this model cannot be run apart"
    job.notes["steps"] = training.num_steps
