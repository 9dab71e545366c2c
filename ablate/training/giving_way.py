"""What gives way where a training does not fit its card: by the estimate before it starts, or when memory runs out."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ablate.store.job import Job
from ablate.store.memory import Memory
from ablate.store.sizes import ModelSizes
from ablate.study.field_types import BYTES
from ablate.study.training_recipes import Distill
from ablate.training import asked_teachers, batches
from ablate.training.card_room import card_room, dtype_of, model_sizes, most_tokens
from ablate.training.memory_estimate import (
    CHECKPOINTING,
    OFFLOAD,
    SMALLER_CHUNK,
    Beside,
    TrainingMemory,
)
from ablate.training.offload import WAITING, can_wait, keep_on_host
from ablate.training.projections import PREFIX
from ablate.training.ranks import ranks_of
from ablate.training.trainable import are_recomputed, recompute_activations
from ablate.training.training import Training

ORDER = (CHECKPOINTING, SMALLER_CHUNK, OFFLOAD)
"""The cheapest first."""
GAVE_WAY = "gave way to the card's memory"
"""The note that says what did."""


def gave_way(training: Training) -> tuple[str, ...]:
    """-> what has given way, beside what the study says."""
    is_checkpointed = are_recomputed(training.student.model) and not training.recipe.gradient_checkpointing
    are_there = {
        CHECKPOINTING: is_checkpointed,
        SMALLER_CHUNK: training.scratch.logit_bytes is not None,
        OFFLOAD: any(hasattr(teacher, WAITING) for teacher in _teachers(training)),
    }
    return tuple(change for change in ORDER if are_there[change])


def next_change(training: Training) -> str | None:
    """-> what can give way next; None: nothing."""
    model, gone = training.student.model, gave_way(training)
    can = {
        CHECKPOINTING: bool(model.supports_gradient_checkpointing) and not are_recomputed(model),
        SMALLER_CHUNK: True,
        OFFLOAD: any(map(can_wait, _teachers(training))),
    }
    return next((change for change in ORDER if change not in gone and can[change]), None)


def give_way(training: Training, changes: Iterable[str]) -> None:
    """Runs a training so from here on: the same result, in less memory."""
    for change in changes:
        if change == CHECKPOINTING:
            recompute_activations(training.student.model)
        elif change == SMALLER_CHUNK:
            training.scratch.logit_bytes = 1  # and so the least tokens
        elif change == OFFLOAD:
            for teacher in _teachers(training):
                keep_on_host(teacher, teacher.device)


def _teachers(training: Training) -> list[Any]:
    """-> the models that run beside the student, in whosever tokens they read."""
    beside = map(asked_teachers.beside, asked_teachers.each(training.teacher))
    return [parts.model for parts in beside if parts]


def room_of(job: Job) -> int | None:
    """-> bytes that a stage may hold of its card, of several cards the least: ranks decide alike."""
    rooms = [room for room in ranks_of(job).gather(card_room(job.device)) if room is not None]
    return min(rooms, default=None)


def fitted_budget(training: Training, room: int | None) -> int:
    """-> tokens a micro-batch, as many as there is room for, once what must has given way; the study's wins.

    `room`: bytes; None on a CPU.
    """
    memory = training_memory(training)
    chosen = training.recipe.micro_batch_tokens
    if room is None or memory is None:
        return chosen or batches.CPU_ROWS_BUDGET
    row = _longest_row(training)
    make_fit(training, memory, row, room)
    return chosen or most_tokens(lambda tokens: held(training, memory, tokens, row).needed, room, row)


def _longest_row(training: Training) -> int:
    recipe, row = training.recipe, int(training.rows.lengths.max())
    if isinstance(recipe, Distill) and recipe.writes_in_training:
        return row + recipe.sampling.max_new_tokens
    return row


def must_wait(training: Training, coming: Sequence[ModelSizes], room: int | None) -> bool:
    """Whether teachers that are to be loaded beside a training leave no room for one row unless their layers wait.

    What is cheaper gives way before that, here and now.
    """
    memory = training_memory(training)
    if room is None or memory is None or not coming:
        return False
    teachers = (*memory.beside.teachers, *coming)
    memory, row = replace(memory, beside=replace(memory.beside, teachers=teachers)), _longest_row(training)
    make_fit(training, memory, row, room)
    return held(training, memory, row, row).needed > room


def make_fit(training: Training, memory: TrainingMemory, row: int, room: int) -> None:
    """Has give way what must, before one row of so many tokens fits into so many bytes; all that can, if none does."""
    while held(training, memory, row, row).needed > room and (change := next_change(training)):
        give_way(training, [change])


def note(job: Job, training: Training) -> None:
    if gone := gave_way(training):
        job.notes[GAVE_WAY] = list(gone)


def held(training: Training, memory: TrainingMemory, tokens: int, row: int) -> Memory:
    """-> what a training holds as it is run now."""
    gone = gave_way(training)
    at = memory.at(tokens, row, is_checkpointed=CHECKPOINTING in gone, is_least=SMALLER_CHUNK in gone)
    return at._replace(teacher=memory.teacher_offloaded()) if OFFLOAD in gone else at


def training_memory(training: Training) -> TrainingMemory | None:
    """-> what a loaded training holds; None of a model whose sizes are not known."""
    student = model_sizes(training.student.model)
    teachers = tuple(map(model_sizes, _teachers(training)))
    if student is None or None in teachers:
        return None
    beside = _beside(training, tuple(teacher for teacher in teachers if teacher))
    return TrainingMemory(training.recipe, student, dtype_of(training.student.model), beside)


def _beside(training: Training, teachers: tuple[ModelSizes, ...]) -> Beside:
    width = BYTES[dtype_of(training.student.model)]
    caches = tuple(asked_teachers.kept(training.teacher))
    heads = [cache.head.weight.numel() for cache in caches if cache.head and cache.head.weight is not None]
    outputs = width * sum(model.hidden for model in teachers) + sum(cache.token_bytes for cache in caches)
    maps = [name for name in training.trainable.weights if name.startswith(PREFIX)]
    return Beside(
        teachers,
        heads=sum(heads),
        output_bytes=outputs,
        kept=caches[0].form if len(caches) == 1 and not teachers else None,
        projections=sum(training.trainable.weights[name].numel() for name in maps),
        states=training.features.held if training.features else None,
    )
