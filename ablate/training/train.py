"""The one training loop, of fine-tuning and distillation alike: a teacher is optional."""

import math
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ablate.core.errors import Diverged, StageError
from ablate.data import steps
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.study.training_recipes import Train
from ablate.training import asked_teachers, batches, checkpoint, written_files
from ablate.training.asked_teachers import AskedTeacher
from ablate.training.batch_loss import batch_loss
from ablate.training.features import Features
from ablate.training.holdout import objective_loss
from ablate.training.loss import LossSums, Objective, Scratch
from ablate.training.model_parts import ModelParts
from ablate.training.on_policy import OwnStep, Writing, Written
from ablate.training.optimizer import Optimizer, learning_rate
from ablate.training.own_tokens import OwnSums, OwnTokens, StepSums
from ablate.training.readers import asked_only
from ablate.training.teacher_top_k import cut_costs, cut_outputs
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
    writing: Writing | None = None
    """Where the student writes answers while it trains."""
    holdout: TokenRows | None = None
    """Rows that an adaptive share looks at."""

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
    if training.num_steps == 0:
        raise StageError("a training of no step: there are no rows to train on")
    run = _begin(job, training)
    for step in range(run.step + 1, training.num_steps + 1):
        run.take(step)
    if not all(weight.isfinite().all() for weight in training.trainable.weights.values()):
        raise Diverged(training.num_steps, math.nan)  # in the very last update, after its loss was recorded
    if run.written:
        written_files.finish(run.written, job)
    return run.budget


@dataclass
class _Run:
    """A training under way, between two of its steps."""

    job: Job
    training: Training
    optimizer: Optimizer
    written: Written | None
    step: int
    """Done."""
    budget: int
    saved_at: float = field(default_factory=time.monotonic)

    def take(self, step: int) -> None:
        rows = self.training.rows_of(step)
        own = self.written.step(rows, self.save_if_due, self.note_halved) if self.written else OwnStep(rows)
        self.budget = _step(self.job, self.training, self.optimizer, self.written, own, self.budget)
        self.step = step
        if self.written:
            self.written.look_if_due(step, lambda: _held_out_loss(self.job, self.training, self.budget))
        if step < self.training.num_steps:
            self.save_if_due()

    def note_halved(self, num: int) -> None:
        """Out of memory: so many answers are written together."""
        change = f"step {self.step + 1}: answers written {num} at a time"
        self.job.notes[OUT_OF_MEMORY] = [*_memory_notes(self.job), change]

    def save_if_due(self) -> None:
        """Between two steps, or within one, with its answers so far. Raises Interrupted when asked to stop."""
        job, is_due = self.job, time.monotonic() - self.saved_at >= self.training.recipe.checkpoint_every_s
        if not (is_due or job.is_stopping()):
            return
        if job.has_time_to_save:
            state = checkpoint.TrainingState(self.step, self.budget, _memory_notes(job))
            checkpoint.save(job, state, self.training.trainable, self.optimizer, self.written)
        self.saved_at = time.monotonic()
        job.stop_if_asked()


def _begin(job: Job, training: Training) -> _Run:
    """-> a run that goes on from the latest checkpoint."""
    optimizer = Optimizer(training.trainable.weights, training.recipe)
    written = Written.nothing(training.writing) if training.writing else None
    restored = checkpoint.restore(job, training.trainable, optimizer)
    if restored is None:
        budget = batches.first_budget(training.recipe.micro_batch_tokens, job.device)
        if written:
            written.look_if_due(0, lambda: _held_out_loss(job, training, budget))
        return _Run(job, training, optimizer, written, 0, budget)
    if written:
        written_files.restore(written, training.rows, restored.folder)
    if restored.state.changed:
        job.notes[OUT_OF_MEMORY] = list(restored.state.changed)
    return _Run(job, training, optimizer, written, restored.state.step, restored.state.budget)


def _held_out_loss(job: Job, training: Training, budget: int) -> float:
    """-> what the training minimises, of the held-out rows and their own answers."""
    teacher = training.teacher
    assert training.holdout is not None
    assert teacher is not None
    with asked_only(training.student.model):
        return objective_loss(
            training.objective,
            training.student,
            training.holdout,
            budget,
            job.device,
            lambda batch: asked_teachers.all_logits(teacher, batch),
            training.cutting,
        )


def _step(
    job: Job, training: Training, optimizer: Optimizer, written: Written | None, own: OwnStep, budget: int
) -> int:
    """One optimizer step, recorded. -> the budget that fitted."""
    started, rows, step = time.monotonic(), own.rows, own.rows.step
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
    seconds = own.seconds + time.monotonic() - started
    job.metrics.append(
        step=step,
        **(losses if counts.loss else dict.fromkeys(losses)),  # of no token there is no mean
        **(written.finish(own, sums.own) if written else {}),
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


def _accumulate_fitting(job: Job, training: Training, step_rows: batches.StepRows, budget: int) -> tuple[StepSums, int]:
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
) -> StepSums:
    """Forward and backward of every micro-batch of a step. -> sums; gradients are added to, summed over tokens too.

    `cuts`: of these rows alone, cut so.
    """
    sums = StepSums(LossSums.zero(device), OwnSums())
    if cuts is None:
        cuts = batches.cut_step(step_rows, budget, training.cutting)
    for chosen in cuts:
        batch = batches.batch(step_rows.rows, chosen).to(device)
        training.trainable.seed_dropout(training.seed, step_rows.step, batch.rows)
        own = OwnTokens(len(batch.labels_M), batch.labels_M.device) if chosen[0] in step_rows.own else None
        loss, feature_loss = _forward_and_backward(training, step_rows.rows, batch, own)
        training.trainable.collect_grads()
        data = sums.data.with_cut(loss.cut) if own else sums.data + loss
        if own:
            sums.own.add(step_rows.rows, chosen, own, loss)
        sums = StepSums(data, sums.own, sums.features + feature_loss)
    return sums


def _forward_and_backward(
    training: Training, rows: TokenRows, batch: batches.MicroBatch, own: OwnTokens | None
) -> tuple[LossSums, float]:
    """-> sums of the losses, and of that on hidden states, without its weight; `own`: where the student wrote it."""
    student, features, teacher = training.student, training.features, training.teacher
    objective = (training.own_objective if own else None) or training.objective
    compared = features.forward(student, batch, own) if features else None
    known = compared.teacher if compared else asked_teachers.outputs(teacher, "train", rows, batch, own)
    hidden_MD = compared.hidden_MD if compared else student.hidden(batch.ids_BT, batch.positions_M)
    known = cut_outputs(objective, known)
    grad_MD, sums = batch_loss(objective, hidden_MD.detach(), student.head, batch, known, training.scratch)
    if features and compared:
        return sums, compared.backward(grad_MD, features.loss.weight)
    torch.autograd.backward(hidden_MD, grad_MD)
    return sums, 0.0


def mean_losses(training: Training, sums: StepSums, num_tokens: int) -> Mapping[str, Any]:
    """-> what a step is recorded with: means over its loss-bearing tokens; `class_loss` over those with labels.

    The student's own answers are no labels; where there is nothing else, the mean is none.
    """
    data, own, objective = sums.data, sums.own, training.objective
    num_labels = num_tokens - own.num_tokens
    class_loss = float(data.class_loss) / max(1, num_labels)
    if training.teacher is None:
        return {"loss": class_loss, "class_loss": class_loss}
    sums_of_all = (float(data.kd_loss), own.kd_loss, float(data.teacher_entropy) + own.teacher_entropy)
    kd_loss, own_kd_loss, entropy = (total / max(1, num_tokens) for total in sums_of_all)
    loss = _weighted(objective, class_loss * (num_labels / max(1, num_tokens)), kd_loss)
    if own.num_tokens and training.own_objective:
        loss += training.own_objective.kd_weight * own_kd_loss
    known_class_loss = None if own.num_tokens and not num_labels else class_loss
    losses = {
        "loss": loss,
        "class_loss": known_class_loss,
        "kd_loss": kd_loss + own_kd_loss,
        "teacher_entropy": entropy,
    }
    if training.features:
        feature_loss = sums.features / max(1, num_tokens)
        losses |= {"loss": loss + training.features.loss.weight * feature_loss, "feature_loss": feature_loss}
    return losses if data.cut is None else {**losses, **cut_costs(data.cut, num_tokens)}


def _weighted(objective: Objective, class_loss: float, kd_loss: float) -> float:
    ratio, weight = objective.kd_ratio, objective.kd_weight
    return (class_loss * (1 - ratio) if ratio < 1 else 0.0) + (weight * kd_loss if weight else 0.0)


def _peak_memory(device: str) -> int:
    """-> bytes: of the card since the start of the process, or of this process on a CPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()
