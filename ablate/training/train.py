"""The one training loop, of fine-tuning and distillation alike: a teacher is optional."""

import math
import resource
import time
from dataclasses import dataclass, field
from functools import partial

import torch

from ablate.core.errors import Diverged, StageError
from ablate.store.job import Job
from ablate.training import asked_teachers, batches, checkpoint, written_files
from ablate.training.giving_way import fitted_budget, gave_way, give_way, next_change, note, room_of
from ablate.training.holdout import objective_loss
from ablate.training.on_policy import OwnStep, Written
from ablate.training.optimizer import Optimizer, learning_rate
from ablate.training.ranks import Ranks, ranks_of, require_equal
from ablate.training.readers import asked_only
from ablate.training.shared_step import Cuts, accumulate_shared, cuts_by_rank
from ablate.training.step_loss import StepSums, mean_losses
from ablate.training.training import Training

OUT_OF_MEMORY = "out of memory"
"""The note that says what was changed for it."""


def train(job: Job, training: Training) -> int:
    """Runs from the latest checkpoint to the end, one record a step in `job.metrics`. -> the budget that fitted.

    Raises Diverged (the step recorded) when the loss or its gradient is not finite, Interrupted when asked to stop
    (a checkpoint saved), StageError when there is nothing to train on or one row alone is too much for the memory.
    """
    if training.num_steps == 0:
        raise StageError("a training of no step: there are no rows to train on")
    run = _begin(job, training)
    with asked_teachers.reading(training.teacher):
        for step in range(run.step + 1, training.num_steps + 1):
            run.take(step)
    if not all(weight.isfinite().all() for weight in training.trainable.weights.values()):
        raise Diverged(training.num_steps, math.nan)  # in the very last update, after its loss was recorded
    require_equal(ranks_of(job), list(training.trainable.weights.values()))
    if run.written and job.is_first:
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
            state = checkpoint.TrainingState(self.step, self.budget, _memory_notes(job), gave_way(self.training))
            checkpoint.save(job, state, self.training.trainable, self.optimizer, self.written)
        self.saved_at = time.monotonic()
        job.stop_if_asked()


def _begin(job: Job, training: Training) -> _Run:
    """-> a run that goes on from the latest checkpoint."""
    optimizer = Optimizer(training.trainable.weights, training.recipe)
    written = Written.nothing(training.writing) if training.writing else None
    restored = checkpoint.restore(job, training.trainable, optimizer)
    if restored is None:
        budget = fitted_budget(training, room_of(job))
        note(job, training)
        if written:
            written.look_if_due(0, lambda: _held_out_loss(job, training, budget))
        return _Run(job, training, optimizer, written, 0, budget)
    if written:
        written_files.restore(written, training.rows, restored.folder)
    give_way(training, [change for change in restored.state.gave_way if change not in gave_way(training)])
    note(job, training)
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
            ranks_of(job),
            training.scratch,
        )


def _step(
    job: Job, training: Training, optimizer: Optimizer, written: Written | None, own: OwnStep, budget: int
) -> int:
    """One optimizer step, recorded. -> the budget that fitted."""
    started, rows, step = time.monotonic(), own.rows, own.rows.step
    if step < training.num_steps:
        asked_teachers.expect(training.teacher, partial(_cuts, ranks_of(job), training, budget), step)
    sums, budget = _accumulate_fitting(job, training, rows, budget)
    counts = batches.counts(rows)
    sums, (norm,) = sums.on_host(optimizer.divide_grad(counts.loss))
    losses, grad_norm = mean_losses(training, sums, counts.loss), float(norm)
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


def _cuts(ranks: Ranks, training: Training, budget: int, step: int) -> Cuts:
    return cuts_by_rank(ranks, training, training.rows_of(step), budget)[ranks.rank]


def _accumulate_fitting(job: Job, training: Training, step_rows: batches.StepRows, budget: int) -> tuple[StepSums, int]:
    """The step's sums and gradients; out of memory, it is begun again with half the tokens a micro-batch.

    With one row at a time something else gives way. Raises StageError when nothing is left that could.
    """
    while True:
        try:
            training.trainable.discard_grads()
            return accumulate_shared(ranks_of(job), training, step_rows, budget, job.device), budget
        except torch.OutOfMemoryError as error:
            cuts = batches.cut_step(step_rows, budget, training.cutting)
            change = next_change(training)
            if (is_least := all(len(cut) == 1 for cut in cuts)) and change is None:
                raise StageError(_nothing_left(training, step_rows), "oom") from error
        if is_least and change:
            give_way(training, [change])
            note(job, training)
        else:
            budget = min(budget, max(batches.size(step_rows.rows, cut, training.cutting) for cut in cuts))
            change = f"micro-batches of {budget} tokens halved to {budget // 2}"
            budget //= 2
        job.notes[OUT_OF_MEMORY] = [*_memory_notes(job), f"step {step_rows.step}: {change}"]
        if job.device != "cpu":
            torch.cuda.empty_cache()


def _nothing_left(training: Training, step_rows: batches.StepRows) -> str:
    longest = max(int(step_rows.rows.lengths[row]) for row in step_rows.indices)
    tried = ", ".join(gave_way(training)) or "nothing else that could give way"
    return (
        f"out of memory with one row of {longest} tokens at a time, at step {step_rows.step}, with {tried}: give the"
        " stage a card with more memory, or set data.max_length"
    )


def _memory_notes(job: Job) -> list[str]:
    changes = job.notes.get(OUT_OF_MEMORY)
    return [str(change) for change in changes] if isinstance(changes, list) else []


def _peak_memory(device: str) -> int:
    """-> bytes: of the card since the start of the process, or of this process on a CPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()
