"""Each change on and off, in turns, in one process: few rows and many."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ablate.training.fused_layers import FusedLayers, installed_kernels
from ablate.training.lora_linear import LoraLinear
from ablate.training.model_parts import split_model
from benchmarks import table
from benchmarks.card_sections import training_steps
from benchmarks.card_sections.sizes import Card
from benchmarks.card_sections.training_steps import Steps

Without: TypeAlias = Callable[[Steps], "contextlib.AbstractContextManager[None]"]
NUM_ROUNDS = 3


@contextlib.contextmanager
def padded(steps: Steps) -> Iterator[None]:
    """Rows side by side, as wide as the longest."""
    before = steps.training
    steps.training = replace(before, student=replace(before.student, is_packed=False))
    yield
    steps.training = before


@contextlib.contextmanager
def float32_adapters(steps: Steps) -> Iterator[None]:
    """Adapters multiply in float32, as PEFT's do."""
    layers = [layer for layer in steps.training.student.model.modules() if isinstance(layer, LoraLinear)]
    for layer in layers:
        layer.forward = partial(_in_float32, layer)  # type: ignore[method-assign]
    yield
    for layer in layers:
        del layer.forward


def _in_float32(layer: LoraLinear, x: Tensor) -> Tensor:
    linear, y = torch.nn.functional.linear, layer.base(x)
    low = linear(x.to(layer.lora_A.dtype), layer.lora_A)
    total: Tensor = linear(low, layer.lora_B * layer.scale).add_(y).to(y.dtype)
    return total


@contextlib.contextmanager
def eager_layers(steps: Steps) -> Iterator[None]:
    """No fused layers, where there are any."""
    if steps.fused:
        steps.fused.restore()
    yield
    if steps.fused:
        steps.fused.put()


PAIRS: Mapping[str, Without] = {
    "padded rows / rows end to end": padded,
    "float32 / 16-bit adapters": float32_adapters,
    "the layers' own code / fused layers": eager_layers,
}


def measure(card: Card) -> dict[str, Any]:
    teacher = split_model(training_steps.model(card, "teacher"), card.vocabulary)
    return {str(num_rows): _of_rows(card, num_rows, teacher) for num_rows in card.num_rows}


def _of_rows(card: Card, num_rows: int, teacher: Any) -> dict[str, Any]:
    steps = Steps(card, num_rows, "vector", teacher)
    kernels = installed_kernels(card.device)
    steps.fused = FusedLayers(steps.training.student.model, kernels) if kernels else None
    if steps.fused:
        steps.fused.put()
    measured: dict[str, Any] = {name: _pair(steps, without) for name, without in PAIRS.items()}
    measured["fused"] = list(steps.fused.sorts) if steps.fused else []
    measured["problems"] = dict(steps.fused.problems) if steps.fused else {}
    return measured


def _pair(steps: Steps, without: Without) -> dict[str, Any]:
    """-> seconds of a step, in turns; the first of each warms up."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for number in range((1 if steps.card.is_cpu else NUM_ROUNDS) + 1):
        with without(steps):
            took = steps.seconds()
        pair = (took, steps.seconds())
        if number:
            for way, one in zip(seconds, pair, strict=True):
                seconds[way].append(one)
    if not steps.card.is_cpu:
        torch.cuda.empty_cache()
    return seconds


def show(measured: dict[str, Any]) -> str:
    rows = []
    for num_rows, of_rows in measured.items():
        for name in PAIRS:
            without, with_it = of_rows[name]["without"], of_rows[name]["with"]
            seconds = (f"{median(one):.3g}" for one in (without, with_it))
            rows.append([num_rows, name, *seconds, table.ratio(without, with_it)])
    fused = next(iter(measured.values()))
    note = f"Fused: {', '.join(fused['fused']) or 'nothing'}. {'; '.join(fused['problems'].values())}"
    return table.markdown(["rows", "pair", "s without", "s with", "ratio"], rows) + "\n" + note + "\n"
