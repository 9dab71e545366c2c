"""What a teacher's kept answers take: which rows are asked about, and the bytes of what is said of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ablate.stages.teacher_cache import Use
from ablate.store.sizes import RowsSizes, fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.schema import Distill

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


def settings_of(stage: Stage) -> Any:
    return stage.settings


def reads(users: Sequence[Stage], rows: RowsSizes | None) -> tuple[Use, ...] | None:
    """-> which rows some distillations read; None: all, or as good as all."""
    found = {_use(stage) for stage in users}
    if None in found or (rows and sum(use.num_steps * use.batch_size for use in found if use) >= rows.rows):
        return None
    return tuple(sorted((use for use in found if use), key=lambda use: use.model_dump_json()))


def _use(stage: Stage) -> Use | None:
    recipe: Distill = settings_of(stage).recipe
    if recipe.max_steps is None:
        return None
    return Use(
        seed=settings_of(stage).seed,
        batch_size=recipe.batch_size,
        num_steps=recipe.max_steps,
        drop_last=recipe.drop_last,
    )


def share_read(reads: Sequence[Use] | None, rows: RowsSizes) -> float:
    """-> at most which share of the training rows a cache holds."""
    num_read = rows.rows if reads is None else sum(use.num_steps * use.batch_size for use in reads)
    return min(1.0, num_read / max(rows.rows, 1))


class Sizes(NamedTuple):
    """Of a cache."""

    total: int
    """Bytes."""
    what: str
    """One token's, in words."""


def sizes(cache: Stage, store: Store) -> Sizes | None:
    """-> what a cache takes, held-out rows and the teacher's head included; None where models or rows are not here."""
    rows, teacher = rows_sizes(store, cache.inputs["rows"]), fetched_sizes(store, cache.inputs["teacher"])
    student = fetched_sizes(store, cache.inputs["student"]) if "student" in cache.inputs else teacher
    if rows is None or teacher is None or student is None:
        return None
    dtype = settings_of(cache).dtype
    hidden, vector = teacher.hidden * BYTES[dtype], student.hidden * max(4, BYTES[dtype]) + 8
    is_vector = settings_of(cache).form == "vector"
    train = int(rows.loss_tokens * share_read(settings_of(cache).reads, rows)) * (vector if is_vector else hidden)
    has_hidden = not is_vector or rows.holdout_loss_tokens
    head = teacher.num_head * BYTES[dtype] if has_hidden else 0
    told = f"a vector of {student.hidden} float32" if is_vector else f"a hidden state of {teacher.hidden} {dtype}"
    return Sizes(train + rows.holdout_loss_tokens * hidden + head, told)
