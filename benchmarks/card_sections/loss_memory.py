"""The most memory that a step holds, by loss, beside what the estimate says."""

import gc
from typing import Any

import torch

from ablate.training.giving_way import held, training_memory
from ablate.training.model_parts import split_model
from benchmarks import table
from benchmarks.card_sections import training_steps
from benchmarks.card_sections.sizes import Card
from benchmarks.card_sections.training_steps import Steps

LOSSES = ("forward_kl", "reverse_kl", "jsd", "adaptive_skew_forward_kl", "tvd")
BUDGET = 8192
"""Tokens a micro-batch."""


def measure(card: Card) -> dict[str, Any]:
    teacher = split_model(training_steps.model(card, "teacher"), card.vocabulary)
    ways = [("finetune", "-"), ("vector", "forward_kl"), *(("beside", loss) for loss in LOSSES)]
    return {"steps": [_step(card, way, loss, teacher) for way, loss in ways]}


def _step(card: Card, way: Any, loss: str, teacher: Any) -> dict[str, Any]:
    gc.collect()
    settings = {} if loss == "-" else {"loss": loss}
    steps = Steps(card, max(card.num_rows), way, teacher, **settings)
    steps.budget = min(steps.budget, BUDGET)
    if not card.is_cpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps.take()
    memory, row = training_memory(steps.training), int(steps.training.rows.lengths.max())
    assert memory
    tokens = min(steps.budget, steps.num_tokens)
    beside = 0 if way == "beside" else num_bytes(teacher.model)  # loaded here, and no part of such a stage
    peak = None if card.is_cpu else torch.cuda.max_memory_allocated() - beside
    return {"way": way, "loss": loss, "peak": peak, "estimate": held(steps.training, memory, tokens, row).needed}


def num_bytes(model: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def show(measured: dict[str, Any]) -> str:
    rows = [
        [
            one["way"],
            one["loss"],
            "-" if one["peak"] is None else f"{one['peak'] / 1e9:.2f}",
            f"{one['estimate'] / 1e9:.2f}",
            "-" if one["peak"] is None else f"{one['estimate'] / one['peak']:.2f}",
        ]
        for one in measured["steps"]
    ]
    return table.markdown(["teacher", "loss", "GB held at most", "GB by the estimate", "estimate / held"], rows)
