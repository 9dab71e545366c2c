"""Before a first training on a device: one step's gradient must not depend on how its rows are cut."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from ablate.training.fused_layers import FusedLayers, Kernels
from ablate.training.quantized import form_of
from ablate.training.ranks import ranks_of
from ablate.training.step_loss import accumulate
from ablate.training.training import Training

NUM_ROWS = 8
PIECE = 2**20
"""Numbers of a gradient that are compared at a time."""
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
    is_noted = disk.read_sealed(noted, [*what, "difference"]) is not None
    if all(ranks_of(job).gather(is_noted)):
        return
    difference = _difference(job, training, budget)
    if difference is None:
        return
    dtype = next(training.student.model.parameters()).dtype
    if not difference <= TOLERANCE[dtype]:  # nor one that is no number
        raise StageError(
            f"the gradient of a step depends on how its rows are cut: forwarded together and one by one it differs by"
            f" {difference:.1e} of its norm ({TOLERANCE[dtype]:.0e} is expected of {dtype}) with {what}."
            " No training here can be trusted: another version of torch or transformers, or another device",
            "unsound",
        )
    if not job.is_first:
        return
    disk.make_folder(job.checks)
    disk.write_sealed(noted, what | {"difference": difference})


def fused_where_sound(job: Job, training: Training, budget: int, kernels: Kernels | None) -> Training:
    """-> the training, the student's layers run by `kernels` where they are as exact as the layers' own code.

    Each kernel is held against the layer, then a step's gradient with them against one without, once for like trainings
    on like machines. What fails is left out and noted in `job.notes`: the training goes on.
    """
    if kernels is None or job.checks is None:
        return training
    fused = FusedLayers(training.student.model, kernels)
    notes = [f"{what} is not fused by {kernels.name}: {why}" for what, why in fused.problems.items()]
    trial = replace(training, fused=fused)
    problem = _problem_of_ranks(job, trial, fused, budget)
    if problem:
        notes.append(f"no layer is fused by {kernels.name}: {problem}")
    if notes:
        job.notes["fused layers"] = [*notes]
    if problem or not fused.sorts:
        return training
    fused.put()
    return trial


def _problem_of_ranks(job: Job, trial: Training, fused: FusedLayers, budget: int) -> str | None:
    """-> the first problem of any rank: all fuse the same layers, or none does."""
    ranks = ranks_of(job)
    if len(set(ranks.gather(fused.sorts))) > 1:
        return "the cards of the stage do not all run the same kernels"
    problems = ranks.gather(_problem_of_fused(job, trial, fused, budget)) if fused.sorts else []
    return next(filter(None, problems), None)


def _problem_of_fused(job: Job, trial: Training, fused: FusedLayers, budget: int) -> str | None:
    """-> why a step with fused layers is not to be trusted; what was found sound is noted in `job.checks`."""
    assert job.checks is not None
    what = _conditions(job, trial)
    noted = job.checks / f"fused-{digest(what)[:12]}.json"
    is_noted = disk.read_sealed(noted, [*what, "difference"]) is not None
    if all(ranks_of(job).gather(is_noted)):
        return None
    tolerance = TOLERANCE[next(trial.student.model.parameters()).dtype]
    difference = _difference_of_fused(job, trial, fused, budget)
    if difference is None:
        return "memory or the rows allow no comparison with the layers' own code"
    if not difference <= tolerance:
        return f"a step's gradient differs by {difference:.1e} of its norm, where {tolerance:.0e} is expected"
    if job.is_first:
        disk.make_folder(job.checks)
        disk.write_sealed(noted, what | {"difference": difference})
    return None


def _difference_of_fused(job: Job, trial: Training, fused: FusedLayers, budget: int) -> float | None:
    """-> relative L2 distance of a step with fused layers from one without; None where it cannot be had."""
    for rows in _row_sets(trial, budget):
        try:
            own = _gradient(job, trial, [rows])
            fused.put()
            _add_gradient(job, trial, [rows])
            return relative_distance(gradients(trial), own)
        except torch.OutOfMemoryError:
            continue
        finally:
            fused.restore()
            trial.trainable.discard_grads()
    return None


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
        **({"fused": [training.fused.kernels.name, *training.fused.sorts]} if training.fused else {}),
        **({"features": _of_features(training.features)} if training.features else {}),
        **({"rows": "packed"} if training.cutting.is_packed else {}),
        **training.objective.kd.further_identity(),
        **({"teacher_top_k": True} if training.objective.top_k else {}),
        **({"quantize": form} if (form := form_of(training.student.model)) else {}),
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
    for rows in _row_sets(training, budget):
        try:
            together = _gradient(job, training, [rows])
            _add_gradient(job, training, [[row] for row in rows])
            return relative_distance(together, gradients(training))
        except torch.OutOfMemoryError:
            continue
        finally:
            training.trainable.discard_grads()
    return None


def _row_sets(training: Training, budget: int) -> Iterator[list[int]]:
    """-> the first rows of the first step, as many as are compared, and fewer each time the memory runs out."""
    rows = [row for row in training.rows_of(1).indices if training.rows.num_loss[row]]
    longest = max((int(training.rows.lengths[row]) for row in rows), default=1)
    num = min(len(rows), NUM_ROWS, max(2, budget // longest))
    while num > 1:
        yield rows[:num]
        num //= 2


def _gradient(job: Job, training: Training, cuts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """-> of each weight, taken from it: kept in its own dtype, in the memory of the host."""
    _add_gradient(job, training, cuts)
    return {name: grad.cpu() for name, grad in _taken(training)}


def _taken(training: Training) -> Iterator[tuple[str, Tensor]]:
    """-> the gradients one by one, each forgotten by its weight, so that no two copies of all are held."""
    for name, weight in training.trainable.weights.items():
        grad, weight.grad = weight.grad, None
        if grad is not None:
            yield name, grad


def gradients(training: Training) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in training.trainable.weights.items() if weight.grad is not None}


def _add_gradient(job: Job, training: Training, cuts: Sequence[Sequence[int]]) -> None:
    training.trainable.discard_grads()
    with ranks_of(job).passing():
        accumulate(training, training.rows_of(1), 0, job.device, cuts)


def relative_distance(ours: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float | None:
    """-> L2 distance over the reference's norm, in float64, a piece at a time; None where that is not finite or 0."""
    distance = norm = 0.0
    for name, grad in reference.items():
        our_N, grad_N = ours[name].flatten(), grad.flatten()
        for begin in range(0, len(grad_N), PIECE):
            exact = grad_N[begin : begin + PIECE].to(torch.float64, copy=True)
            norm += float(exact.dot(exact))
            exact -= our_N[begin : begin + PIECE].to(exact.device)
            distance += float(exact.dot(exact))
    return math.sqrt(distance / norm) if 0 < norm < math.inf else None
