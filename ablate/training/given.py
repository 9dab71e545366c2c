"""What a stage of models is given: rows as another stage prepared them, and models that can read them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ablate.core.errors import StageError
from ablate.data import tokens
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.training.layer_placement import place_layers
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.model_source import ModelSource
from ablate.training.offload import keep_on_host
from ablate.training.ranks import ranks_of
from ablate.training.sharding import shard
from ablate.training.teacher_cache import RowSplit

DIVERGED = "diverged.json"
"""All that a training leaves whose loss was not finite."""


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


def load_parts(job: Job, name: str, source: ModelSource, rows: PreparedRows, *, is_waiting: bool = False) -> ModelParts:
    """-> a model that nothing is trained of. Raises StageError when it diverged or the rows are too long for it.

    `is_waiting`: its layers wait in this machine's memory from the beginning on, if they can.
    """
    refuse_diverged(name, source)
    model = load_waiting(job, source) if is_waiting else load_frozen(job, source)
    parts = split_model(model, rows.vocabulary)
    refuse_long_rows(rows, name, parts)
    return parts


def load_frozen(job: Job, source: ModelSource) -> Any:
    """-> a model on the stage's device, or of several cards a part of it on each."""
    model = load_whole(job, source)
    if job.is_sharded:
        shard(model, job.device, ranks_of(job))
    elif job.layer_devices:
        place_layers(model, job.layer_devices)
    return model


def load_waiting(job: Job, source: ModelSource) -> Any:
    """-> a model that was never whole on the stage's device, where it shows layers that can wait."""
    model = source.load(job.settings.dtype, "cpu", job.checks, job.device).model
    return model if keep_on_host(model, torch.device(job.device)) else model.to(job.device)


def load_whole(job: Job, source: ModelSource) -> Any:
    """-> a model on the stage's device, or in this machine's own memory where several cards are to share it."""
    is_divided = job.is_sharded or job.layer_devices
    return source.load(job.settings.dtype, "cpu" if is_divided else job.device, job.checks, job.device).model


def refuse_diverged(name: str, source: ModelSource) -> None:
    for folder in source.trainings:
        if (folder / DIVERGED).is_file():
            raise StageError(f"its {name} diverged ({folder.parent.name}), so there is nothing to go on from")


def refuse_long_rows(rows: PreparedRows, name: str, parts: ModelParts) -> None:
    limit = getattr(parts.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and rows.longest > limit:
        raise StageError(
            f"the longest row has {rows.longest} tokens and the {name} ({type(parts.model).__name__}) has "
            f"{limit} positions: set data.max_length to {limit} or less"
        )
