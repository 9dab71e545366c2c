"""Before a first training on a device: one step's gradient must not depend on how its rows are cut."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import digest
from ablate.store.job import Job
from ablate.study.training_recipes import Lora
from ablate.training.asked_teachers import OneTeacher, SeveralTeachers, beside, each
from ablate.training.features import Features
from ablate.training.step_loss import accumulate
from ablate.training.training import Training

NUM_ROWS = 8
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Of the gradient's norm: kernels round differently for inputs of another shape; a wrong scale or mask gives 0.5."""


def require_sound(job: Job, training: Training, budget: int) -> None:
    """Compares the gradient of a few rows forwarded together and one by one; once for like trainings on like machines.

    What was found is noted in `job.checks`. Raises StageError (unsound), which stops the study, when they differ.
    """
    if job.checks is None:
        return
    what = _conditions(job, training)
    noted = job.checks / f"{digest(what)[:12]}.json"
    if disk.read_sealed(noted, [*what, "difference"]) is not None:
        return
    difference = _difference(job, training, budget)
    if difference is None:
        return
    dtype = next(training.student.model.parameters()).dtype
    if difference > TOLERANCE[dtype]:
        raise StageError(
            f"the gradient of a step depends on how its rows are cut: forwarded together and one by one it differs by"
            f" {difference:.1e} of its norm ({TOLERANCE[dtype]:.0e} is expected of {dtype}) with {what}."
            " No training here can be trusted: another version of torch or transformers, or another device",
            "unsound",
        )
    disk.make_folder(job.checks)
    disk.write_sealed(noted, what | {"difference": difference})


def _conditions(job: Job, training: Training) -> dict[str, Any]:
    """-> what decides whether a gradient is right, apart from the numbers in it."""
    return {
        "device": job.device_name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": str(next(training.student.model.parameters()).dtype),
        "student": type(training.student.model).__name__,
        "teacher": _teacher_name(training),
        "loss": training.objective.kd.name,
        "lora": training.recipe.lora is not None,
        **_of_adapters(training.recipe.lora),
        "gradient_checkpointing": training.recipe.gradient_checkpointing,
        **({"features": _of_features(training.features)} if training.features else {}),
        **({"rows": "packed"} if training.cutting.is_packed else {}),
        **training.objective.kd.further_identity(),
        **({"teacher_top_k": True} if training.objective.top_k else {}),
    }


def _of_features(features: Features) -> str:
    return f"{features.loss.name}{', projected' if features.projection_TS is not None else ''}"


def _of_adapters(lora: Lora | None) -> dict[str, Any]:
    """-> what of an adapter is run by code of its own, where it is used."""
    used = {"dora": lora.use_dora, "modules_to_save": list(lora.modules_to_save)} if lora else {}
    return {name: value for name, value in used.items() if value}


def _teacher_name(training: Training) -> str:
    names = [_name_of(one) for one in each(training.teacher)]
    mean = f", mean of {training.teacher.mean}" if isinstance(training.teacher, SeveralTeachers) else ""
    return f"{' and '.join(names)}{mean}" or type(None).__name__  # as earlier notes say it, which hold still


def _name_of(teacher: OneTeacher) -> str:
    parts = beside(teacher)
    return type(parts.model).__name__ if parts else "Cache"


def _difference(job: Job, training: Training, budget: int) -> float | None:
    """-> relative L2 distance; None where memory or the rows allow no comparison, or the gradient is not finite."""
    rows = [row for row in training.rows_of(1).indices if training.rows.num_loss[row]]
    longest = max((int(training.rows.lengths[row]) for row in rows), default=1)
    num = min(len(rows), NUM_ROWS, max(2, budget // longest))
    while num > 1:
        try:
            together = _gradient(job, training, [rows[:num]])
            alone = _gradient(job, training, [[row] for row in rows[:num]])
        except torch.OutOfMemoryError:
            num //= 2
            continue
        finally:
            training.trainable.discard_grads()
        distance, norm = float((together - alone).norm()), float(alone.norm())
        return distance / norm if 0 < norm < float("inf") else None
    return None


def _gradient(job: Job, training: Training, cuts: Sequence[Sequence[int]]) -> Tensor:
    training.trainable.discard_grads()
    accumulate(training, training.rows_of(1), 0, job.device, cuts)
    grads = (weight.grad for weight in training.trainable.weights.values())
    return torch.cat([grad.flatten().double().cpu() for grad in grads if grad is not None])
