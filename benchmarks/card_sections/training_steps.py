"""Optimizer steps of a training whose models are made on the device."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.machine import gpus
from ablate.study.training_recipes import Distill
from ablate.training import batches, trainable
from ablate.training.adapters import Origin
from ablate.training.capture_plan import CapturePlan, VectorTarget
from ablate.training.card_room import card_room
from ablate.training.fused_layers import FusedLayers
from ablate.training.giving_way import fitted_budget
from ablate.training.loss import CLASS_LOSS, objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.optimizer import Optimizer
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.teacher_cache import CachedTeacher, CacheIndex
from ablate.training.teacher_capture import capture_teacher
from ablate.training.training import Training
from benchmarks import rows
from benchmarks.card_sections.sizes import Card
from benchmarks.contenders.ours import MADE_BY, job_of
from benchmarks.setup import KD_RATIO, LORA_ALPHA, LORA_RANK, LR, TARGETS, WEIGHT_DECAY

Way: TypeAlias = Literal["finetune", "vector", "beside"]
SEED = 0


def model(card: Card, name: str) -> Any:
    """-> `teacher` or `student`, with random weights."""
    return model_of(card, card.config(name))


def model_of(card: Card, config: Any) -> Any:
    """-> a model of random weights, frozen."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    with torch.device(card.device):
        built = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, card.dtype))
    return built.requires_grad_(False).eval()


def recipe(num_rows: int, **settings: Any) -> Distill:
    lora = {"rank": LORA_RANK, "alpha": LORA_ALPHA, "target_modules": list(TARGETS)}
    optimizer = {"weight_decay": WEIGHT_DECAY}
    given = {"batch_size": num_rows, "lr": LR, "kd_ratio": KD_RATIO, "optimizer": optimizer, "lora": lora}
    return Distill.model_validate(given | settings)


def token_rows(card: Card, num_rows: int) -> TokenRows:
    """-> rows as long as Alpaca's; every token counts in the loss."""
    return lay(TokenRow(ids, [True] * len(ids)) for ids in rows.make(num_rows, card.vocabulary, SEED))


class Steps:
    """A training of which one step is taken again and again."""

    def __init__(self, card: Card, num_rows: int, way: Way, teacher: ModelParts | None = None, **settings: Any) -> None:
        """`teacher`: asked beside, or about all rows before the first step."""
        self.card = card
        asked = recipe(num_rows, **settings)
        student = model(card, "student")
        weights = trainable.make_trainable(student, asked, SEED, Origin())
        parts = split_model(student, card.vocabulary)
        goal = CLASS_LOSS if way == "finetune" else objective(asked)
        self.training = Training(asked, SEED, token_rows(card, num_rows), parts, weights, goal)
        if way != "finetune":
            assert teacher is not None
            answers = teacher if way == "beside" else kept(self.training, teacher, card)
            self.training = replace(self.training, teacher=answers)
        self.optimizer = Optimizer(weights.weights, asked)
        self.budget = fitted_budget(self.training, card_room(card.device))
        self.fused: FusedLayers | None = None

    @property
    def num_tokens(self) -> int:
        return int(self.training.rows.lengths.sum())

    def take(self) -> Mapping[str, Any]:
        """-> the losses of one step."""
        training, step = self.training, self.training.rows_of(1)
        counts = batches.counts(step)
        training.trainable.discard_grads()
        sums = accumulate(training, step, self.budget, self.card.device)
        sums, _ = sums.on_host(self.optimizer.divide_grad(counts.loss))
        losses = mean_losses(training, sums, counts.loss)
        self.optimizer.step(LR)
        training.trainable.update_model()
        return losses

    def seconds(self) -> float:
        """-> of one step."""
        return seconds_of(self.card, self.take)


def kept(training: Training, teacher: ModelParts, card: Card) -> CachedTeacher:
    """-> the teacher's answers about all rows, as vectors."""
    parts = {"train": training.rows, "holdout": lay([])}
    folder = Path(card.scratch) / f"vectors-{len(training.rows)}"
    if not folder.exists():
        read = {"train": range(len(training.rows)), "holdout": range(0)}
        target = VectorTarget(training.student.head, training.objective.temperature)
        capture_teacher(job_of(folder, card.device), CapturePlan(MADE_BY, card.dtype, teacher, target, parts, read))
    return CachedTeacher(CacheIndex(folder / "out"), parts, card.device)


def seconds_of(card: Card, work: Callable[[], Any]) -> float:
    """-> from one synchronisation to the next; on a CPU those that the process used."""
    if card.is_cpu:
        begun = time.process_time()
        work()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def model_flops(steps: Steps, teacher: Any = None) -> float:
    """-> of one step, what cannot be left out: 4 a frozen weight of the student's body and head and token (there and
    back, no gradient of its own), 6 a weight of its adapters, 2 a weight of a teacher beside it (attention apart)."""
    student, weights = steps.training.student.model, steps.training.trainable.weights
    adapters = sum(weight.numel() for weight in weights.values())
    frozen = num_multiplied(student) - adapters
    flops = 4 * frozen + 6 * adapters + (2 * num_multiplied(teacher) if teacher is not None else 0)
    return float(flops * steps.num_tokens)


def num_multiplied(model: Any) -> int:
    """-> weights that a token is multiplied with: an embedding that is no head is only looked up."""
    num: int = sum(weight.numel() for weight in model.parameters())
    return num - (0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel())


def peak_flops() -> float | None:
    """-> a second, dense, in 16 bits, by the data sheet; None where the card is in no table, or there is none."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = gpus.DENSE_TFLOPS.get(gpus.card_in(name) or "")
    return known * 1e12 if known else None
