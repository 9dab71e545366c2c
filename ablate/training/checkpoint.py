"""A training half-way, on disk: weights, moments, and the curve so far; everything else follows from the step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.store.job import Job
from ablate.training import files, written_files
from ablate.training.on_policy import Written
from ablate.training.optimizer import Optimizer
from ablate.training.trainable import Trainable


class TrainingState(NamedTuple):
    """Where a training stands. Random numbers are seeded by step, so no generator's state is kept."""

    step: int
    """Optimizer steps done."""
    budget: int
    """Tokens a micro-batch, as it was found."""
    changed: Sequence[str] = ()
    """What was changed on the way, for a reader."""
    gave_way: Sequence[str] = ()
    """What gave way to the card's memory: so it is run from here on."""


class Restored(NamedTuple):
    """A training that goes on from a checkpoint."""

    state: TrainingState
    folder: Path


def save(
    job: Job, state: TrainingState, trainable: Trainable, optimizer: Optimizer, written: Written | None = None
) -> None:
    """Saves a training between two steps, or within one, as many of whose answers are there as are in `written`."""

    def write(folder: Path) -> None:
        files.save(trainable.weights, folder / "weights.safetensors")
        files.save(optimizer.state(), folder / "moments.safetensors")
        disk.write_json(folder / "state.json", state._asdict())
        disk.copy(job.metrics.path, folder / "metrics.jsonl")
        if written:
            written_files.save(written, folder)

    job.checkpoints.save(state.step, write, len(written.answers) if written else 0)


@torch.no_grad()
def restore(job: Job, trainable: Trainable, optimizer: Optimizer) -> Restored | None:
    """Goes back to the latest complete checkpoint, the curve too. -> where that is; None where there is none."""
    latest = job.checkpoints.latest()
    if latest is None:
        job.metrics.cut_after(0)
        return None
    _, folder = latest
    state = TrainingState(**json.loads((folder / "state.json").read_text()))
    saved = load_file(folder / "weights.safetensors")
    _require_fitting(folder, trainable, saved)
    for name, value in saved.items():
        trainable.weights[name].copy_(value)
    trainable.update_model()
    optimizer.restore(load_file(folder / "moments.safetensors"))
    job.metrics.go_back(folder / "metrics.jsonl", state.step)
    return Restored(state, folder)


def _require_fitting(folder: Path, trainable: Trainable, saved: Mapping[str, Tensor]) -> None:
    """Raises StageError where a checkpoint is not of this training: `copy_` would leave some out, or broadcast."""
    there = {name: (tuple(value.shape), value.dtype) for name, value in saved.items()}
    here = {name: (tuple(value.shape), value.dtype) for name, value in trainable.weights.items()}
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        raise StageError(
            f"{folder}: {len(differing)} tensors of this checkpoint are not those of the training, {differing[0]} among"
            " them: remove it, and the training begins anew"
        )
