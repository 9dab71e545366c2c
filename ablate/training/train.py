"""The one training loop, of fine-tuning and distillation alike: a teacher is optional."""

import math
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ablate.core.errors import Diverged, StageError
from ablate.data import steps
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, batches, checkpoint
from ablate.training.asked_teachers import AskedTeacher
from ablate.training.features import Features
from ablate.training.loss import LossSums, Objective, Scratch, TeacherOutputs, fused_loss
from ablate.training.model_parts import ModelParts
from ablate.training.optimizer import Optimizer, learning_rate
from ablate.training.trainable import Trainable

OUT_OF_MEMORY = "out of memory"
"""The note that says what was changed for it."""


@dataclass(frozen=True)
class Training:
    """All that a training consists of. The result depends on nothing else."""

    recipe: Train
    seed: int
    rows: TokenRows
    student: ModelParts
    trainable: Trainable
    objective: Objective
    own_objective: Objective | None = None
    """Of the rows whose answers the student writes."""
    teacher: AskedTeacher | None = None
    features: Features | None = None
    """Hidden states of the teacher, beside the student then, that the student's are compared with."""
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def cutting(self) -> batches.Cutting:
        """How rows are put together: for the student, and the teacher beside it."""
        cutting = self.student.cutting
        borders = (border for teacher in asked_teachers.live(self.teacher) for border in teacher.cutting.borders)
        return cutting._replace(borders=tuple(sorted({*cutting.borders, *borders})))

    @property
    def num_steps(self) -> int:
        recipe = self.recipe
        return steps.num_steps(len(self.rows), recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)

    def rows_of(self, step: int) -> batches.StepRows:
        recipe = self.recipe
        indices = steps.rows_of_step(step, len(self.rows), recipe.batch_size, recipe.drop_last, self.seed)
        return batches.StepRows(step, self.rows, indices)


def train(job: Job, training: Training) -> int:
    """Runs from the latest checkpoint to the end, one record a step in `job.metrics`. -> the budget that fitted.

    Raises Diverged (the step recorded) when the loss or its gradient is not finite, Interrupted when asked to stop
    (a checkpoint saved), StageError when there is nothing to train on or one row alone is too much for the memory.
    """
    total = training.num_steps
    if total == 0:
        raise StageError("a training of no step: there are no rows to train on")
    optimizer = Optimizer(training.trainable.weights, training.recipe)
    restored = checkpoint.restore(job, training.trainable, optimizer)
    if restored and restored.changed:
        job.notes[OUT_OF_MEMORY] = list(restored.changed)
    budget = restored.budget if restored else batches.first_budget(training.recipe.micro_batch_tokens, job.device)
    saved_at = time.monotonic()
    for step in range(restored.step + 1 if restored else 1, total + 1):
        budget = _step(job, training, optimizer, step, budget)
        is_due = time.monotonic() - saved_at >= training.recipe.checkpoint_every_s
        if step < total and (is_due or job.is_stopping()):
            if job.has_time_to_save:
                checkpoint.save(
                    job, checkpoint.TrainingState(step, budget, _memory_notes(job)), training.trainable, optimizer
                )
            saved_at = time.monotonic()
            job.stop_if_asked()
    if not all(weight.isfinite().all() for weight in training.trainable.weights.values()):
        raise Diverged(total, math.nan)  # in the very last update, after its loss was recorded
    return budget


def _step(job: Job, training: Training, optimizer: Optimizer, step: int, budget: int) -> int:
    """One optimizer step, recorded. -> the budget that fitted."""
    started = time.monotonic()
    rows = training.rows_of(step)
    if step < training.num_steps:
        for kept in asked_teachers.kept(training.teacher):
            kept.read_ahead("train", training.rows, training.rows_of(step + 1).indices)
    sums, budget = _accumulate_fitting(job, training, rows, budget)
    counts = batches.counts(rows)
    losses = mean_losses(training, sums, counts.loss)
    grad_norm = optimizer.divide_grad(counts.loss)
    lr = learning_rate(step, training.num_steps, training.recipe)
    is_finite = math.isfinite(losses["loss"]) and math.isfinite(grad_norm)
    if is_finite:
        optimizer.step(lr)
        training.trainable.update_model()
    seconds = time.monotonic() - started
    job.metrics.append(
        step=step,
        **(losses if counts.loss else dict.fromkeys(losses)),  # of no token there is no mean
        lr=lr,
        grad_norm=grad_norm,
        tokens=counts.loss,
        tokens_all=counts.all,
        seconds=seconds,
        peak_memory=_peak_memory(job.device),
    )
    if not is_finite:
        raise Diverged(step, losses["loss"])
    job.progress(step, training.num_steps, "step", loss=losses["loss"], tokens_per_s=counts.all / max(seconds, 1e-9))
    return budget


def _accumulate_fitting(job: Job, training: Training, step_rows: batches.StepRows, budget: int) -> tuple[LossSums, int]:
    """The step's sums and gradients; out of memory, it is begun again with half the tokens a micro-batch."""
    step, rows = step_rows.step, step_rows.rows
    while True:
        try:
            training.trainable.discard_grads()
            return accumulate(training, step_rows, budget, job.device), budget
        except torch.OutOfMemoryError as error:
            cuts = batches.cut_step(step_rows, budget, training.cutting)
            if all(len(cut) == 1 for cut in cuts):
                longest = max(int(rows.lengths[row]) for row in step_rows.indices)
                raise StageError(
                    f"out of memory with one row of {longest} tokens at a time, at step {step}: give the stage a card "
                    "with more memory, set gradient_checkpointing: true, or data.max_length",
                    "oom",
                ) from error
        budget = min(budget, max(len(cut) * int(rows.lengths[cut[0]]) for cut in cuts))
        change = f"step {step}: micro-batches of {budget} tokens halved to {budget // 2}"
        job.notes[OUT_OF_MEMORY] = [*_memory_notes(job), change]
        budget //= 2
        if job.device != "cpu":
            torch.cuda.empty_cache()


def _memory_notes(job: Job) -> list[str]:
    changes = job.notes.get(OUT_OF_MEMORY)
    return [str(change) for change in changes] if isinstance(changes, list) else []


def accumulate(
    training: Training,
    step_rows: batches.StepRows,
    budget: int,
    device: str,
    cuts: Iterable[Sequence[int]] | None = None,
) -> LossSums:
    """Forward and backward of every micro-batch of a step. -> sums; gradients are added to, summed over tokens too.

    `cuts`: of these rows alone, cut so.
    """
    sums = LossSums.zero(device)
    if cuts is None:
        cuts = batches.cut_step(step_rows, budget, training.cutting)
    for chosen in cuts:
        batch = batches.batch(step_rows.rows, chosen).to(device)
        training.trainable.seed_dropout(training.seed, step_rows.step, batch.rows)
        objective = training.own_objective if chosen[0] in step_rows.own else training.objective
        sums += _forward_and_backward(training, step_rows.rows, batch, objective or training.objective)
        training.trainable.collect_grads()
    return sums


def _forward_and_backward(
    training: Training, rows: TokenRows, batch: batches.MicroBatch, objective: Objective
) -> LossSums:
    student, features = training.student, None
    if training.features:
        features = training.features.forward(student, batch)
        teacher: TeacherOutputs = features.teacher
        hidden_MD = features.hidden_MS
    else:
        teacher = asked_teachers.outputs(training.teacher, "train", rows, batch)
        hidden_MD = student.hidden(batch.ids_BT, batch.positions_M)
    grad_MD, sums = fused_loss(objective, hidden_MD.detach(), student.head, batch.labels_M, teacher, training.scratch)
    if training.features and features:
        return sums._replace(feature_loss=features.backward(grad_MD, training.features.loss.weight))
    torch.autograd.backward(hidden_MD, grad_MD)
    return sums


def mean_losses(training: Training, sums: LossSums, num_tokens: int) -> Mapping[str, float]:
    """-> what a step is recorded with: means over its loss-bearing tokens."""
    class_loss, kd_loss, entropy, feature_loss = (float(part) / max(1, num_tokens) for part in sums)
    if training.teacher is None:
        return {"loss": class_loss, "class_loss": class_loss}
    ratio, weight = training.objective.kd_ratio, training.objective.kd_weight
    loss = (class_loss * (1 - ratio) if ratio < 1 else 0.0) + (weight * kd_loss if weight else 0.0)
    losses = {"loss": loss, "class_loss": class_loss, "kd_loss": kd_loss, "teacher_entropy": entropy}
    if training.features is None:
        return losses
    return losses | {"loss": loss + training.features.loss.weight * feature_loss, "feature_loss": feature_loss}


def _peak_memory(device: str) -> int:
    """-> bytes: of the card since the start of the process, or of this process on a CPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()
