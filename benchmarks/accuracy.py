"""How far a step's LoRA gradients are from float64: any cut, any cache, against transformers and peft alone."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.data.tokens import lay
from ablate.training import batches, trainable
from ablate.training.adapters import Origin
from ablate.training.capture_plan import CapturePlan, VectorTarget
from ablate.training.loss import objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.step_loss import accumulate
from ablate.training.teacher_cache import CachedTeacher, CacheIndex
from ablate.training.teacher_capture import capture_teacher
from ablate.training.training import Training
from benchmarks import models
from benchmarks.contenders import ours
from benchmarks.setup import KD_RATIO, Setup

BUDGETS = (1, 512, 1024, 2048, 8192)


def training_of(setup: Setup, folder: Path) -> Training:
    """-> a training whose adapters already differ from zero, saved in `folder` as PEFT reads them."""
    recipe, rows = ours.recipe_of(setup), ours.token_rows(setup)
    model = models.load(setup.model("student"), setup.dtype, setup.device)
    weights = trainable.make_trainable(model, recipe, setup.seed, Origin())
    generator = torch.Generator().manual_seed(setup.seed)
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            weight.data = (torch.randn(weight.shape, generator=generator) * 0.02).to(weight.device)
    weights.save(folder)
    teacher = split_model(models.load(setup.model("teacher"), setup.dtype, setup.device), setup.vocabulary)
    return Training(recipe, setup.seed, rows, split_model(model, setup.vocabulary), weights, objective(recipe), teacher)


def kept(training: Training, form: str, setup: Setup, folder: Path) -> CachedTeacher:
    parts = {"train": training.rows, "holdout": lay([])}
    vector = VectorTarget(training.student.head, 1.0) if form == "vector" else None
    teacher: ModelParts = training.teacher  # type: ignore[assignment]
    read = {"train": range(len(training.rows)), "holdout": range(0)}
    plan = CapturePlan(ours.MADE_BY, setup.dtype, teacher, vector, parts, read)
    capture_teacher(ours.job_of(folder / form, setup.device), plan)
    return CachedTeacher(CacheIndex(folder / form / "out"), parts, setup.device)


def exact(setup: Setup, training: Training, folder: Path) -> dict[str, Tensor]:
    """-> mean gradients by name: whole logits, one row at a time, float64."""
    from peft import PeftModel

    plain, teacher = (
        models.load(setup.model(name), setup.dtype, setup.device).double() for name in ("student", "teacher")
    )
    student = PeftModel.from_pretrained(plain, folder, is_trainable=True).double()
    num = int(training.rows.num_loss.sum())
    for index in range(len(training.rows)):
        ids = torch.tensor(training.rows.row(index)[0].tolist(), device=setup.device)
        q = student(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        with torch.no_grad():
            p = teacher(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        class_loss = torch.nn.functional.nll_loss(q, ids[1:], reduction="sum")
        kd_loss = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
        ((1 - KD_RATIO) * class_loss + KD_RATIO * kd_loss).div(num).backward()
    named = ((name.replace(".default", ""), weight.grad) for name, weight in student.named_parameters())
    return {name: grad for name, grad in named if grad is not None}


def gradient(training: Training, budget: int, device: str) -> dict[str, Tensor]:
    training.trainable.discard_grads()
    accumulate(training, training.rows_of(1), budget, device)
    num = int(training.rows.num_loss.sum())
    return {name: weight.grad / num for name, weight in training.trainable.weights.items()}  # type: ignore[operator]


def relative(grads: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """-> L2 distance over the norm of the reference, of all tensors together."""
    distance, norm = (
        sum(float(tensor.square().sum()) for tensor in tensors) ** 0.5
        for tensors in ([grads[name].double() - grad for name, grad in reference.items()], list(reference.values()))
    )
    return distance / norm


def measured(setup: Setup, folder: Path) -> Iterator[tuple[str, int, float]]:
    training = training_of(setup, folder)
    reference = exact(setup, training, folder)
    ways: dict[str, Any] = {"beside": training.teacher}
    ways |= {form: kept(training, form, setup, folder) for form in ("hidden", "vector")}
    for way, teacher in ways.items():
        for budget in BUDGETS:
            grads = gradient(replace(training, teacher=teacher), budget, setup.device)
            yield way, len(batches.cut(training.rows, training.rows_of(1).indices, budget)), relative(grads, reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--teacher", type=models.Size.parse, default="10x640")
    parser.add_argument("--student", type=models.Size.parse, default="5x320")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models.save_pair(folder, given.teacher, given.student, given.vocabulary, given.dtype, given.device, 0)
        setup = Setup("accuracy", name, given.vocabulary, given.rows, 0, given.dtype, given.device)
        print("| teacher | micro-batches | all LoRA gradients, relative L2 from float64 |\n|---|---|---|")
        for way, num, difference in measured(setup, folder):
            print(f"| {way} | {num} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
