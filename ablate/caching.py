"""Whose answers are kept: which teachers are asked once for several distillations, and why the others are not."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ablate.facts import ModelFacts, RowsFacts, fetched_facts, rows_facts
from ablate.model import Frozen
from ablate.spec.schema import Distill
from ablate.stage import Stage
from ablate.stages.teacher_cache import TeacherCacheSettings, Use
from ablate.store import Store

FREE = 1.2
"""Times the bytes of a cache that must be free on the disk."""

Make: TypeAlias = Callable[[str, Frozen, Mapping[str, Stage]], Stage]


class Choice(NamedTuple):
    """One teacher, the distillations that could share its answers, and what is done about it."""

    users: tuple[Stage, ...]
    cache: Stage | None
    why: str


def choose(distillations: Iterable[Stage], store: Store, make: Make) -> tuple[Choice, ...]:
    """-> a choice for every set of distillations that ask one teacher the same.

    Counts what is done as well, so that a study comes to the same results however often it is interrupted.
    """
    sets: dict[tuple[Any, ...], list[Stage]] = {}
    for stage in distillations:
        sets.setdefault(_asked(stage), []).append(stage)
    return tuple(_choice(users, store, make) for users in sets.values())


def _asked(stage: Stage) -> tuple[Any, ...]:
    names = ("teacher", "teacher_adapter", "student", "rows")
    inputs = tuple(stage.inputs[name].identity if name in stage.inputs else None for name in names)
    return (*inputs, stage.settings.dtype, _recipe(stage).temperature, _no_vector(stage))  # type: ignore[attr-defined]


def _recipe(stage: Stage) -> Distill:
    recipe: Distill = stage.settings.recipe  # type: ignore[attr-defined]
    return recipe


def _no_vector(stage: Stage) -> str | None:
    """-> why a distillation cannot learn from vectors, or None."""
    recipe = _recipe(stage)
    if recipe.teacher_cache == "none":
        return "the study says teacher_cache: none"
    if recipe.teacher_cache == "hidden":
        return "caches of hidden states are not there yet"
    if recipe.loss.needs != "vector":
        return f"{recipe.loss.name} needs all of the teacher's logits"
    return "lora: none trains the student's head" if recipe.lora is None else None


def _choice(users: Sequence[Stage], store: Store, make: Make) -> Choice:
    none = _no_vector(users[0])
    is_forced = any(_recipe(stage).teacher_cache == "vector" for stage in users)
    if none is None and len(users) == 1 and not is_forced:
        none = "one distillation alone asks it"
    if none:
        return Choice(tuple(users), None, none)
    cache = _cache(users, store, make)
    room, why = _room(cache, store)
    return Choice(tuple(users), cache if room else None, why)


def _cache(users: Sequence[Stage], store: Store, make: Make) -> Stage:
    inputs = {name: of for name, of in users[0].inputs.items() if name != "student_adapter"}
    settings = TeacherCacheSettings(
        dtype=users[0].settings.dtype,  # type: ignore[attr-defined]
        temperature=_recipe(users[0]).temperature,
        reads=_reads(users, rows_facts(store, inputs["rows"])),
    )
    return make("teacher_cache", settings, inputs)


def _reads(users: Sequence[Stage], rows: RowsFacts | None) -> tuple[Use, ...] | None:
    found = {_use(stage) for stage in users}
    if None in found or (rows and sum(use.num_steps * use.batch_size for use in found if use) >= rows.rows):
        return None
    return tuple(sorted((use for use in found if use), key=lambda use: use.model_dump_json()))


def _use(stage: Stage) -> Use | None:
    recipe = _recipe(stage)
    if recipe.max_steps is None:
        return None
    seed: int = stage.settings.seed  # type: ignore[attr-defined]
    return Use(seed=seed, batch_size=recipe.batch_size, num_steps=recipe.max_steps, drop_last=recipe.drop_last)


def num_read(cache: Stage, rows: RowsFacts) -> int:
    """-> at most how many rows of the training set a cache holds."""
    reads: tuple[Use, ...] | None = cache.settings.reads  # type: ignore[attr-defined]
    return rows.rows if reads is None else min(rows.rows, sum(use.num_steps * use.batch_size for use in reads))


def num_bytes(cache: Stage, rows: RowsFacts, student: ModelFacts) -> int:
    """-> of its vectors and entropies."""
    tokens = rows.loss_tokens * num_read(cache, rows) / max(rows.rows, 1) + rows.holdout_loss_tokens
    return int(tokens * (student.hidden * 4 + 8))


def _room(cache: Stage, store: Store) -> tuple[bool, str]:
    """-> whether the disk has room for it; what was begun is gone on with."""
    rows, student = rows_facts(store, cache.inputs["rows"]), fetched_facts(store, cache.inputs["student"])
    if rows is None or student is None:
        return True, "a vector a token, as large as the student is wide"
    size = num_bytes(cache, rows, student)
    folder = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < FREE * size and not store.attempts(cache.key12):
        return False, f"its answers would take {_told(size)} and {_told(free)} are free under {store.root}"
    return True, f"{_told(size)}, a vector of {student.hidden} float32 a token"


def _told(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def notes(choices: Iterable[Choice], name_of: Callable[[Stage], str]) -> Iterator[str]:
    """What a reader of the plan is told, of each teacher that several distillations ask, or that is to be kept."""
    for choice in choices:
        many = f"{len(choice.users)} distillations" if len(choice.users) > 1 else "one distillation"
        if choice.cache:
            yield f"{name_of(choice.users[0])} is asked once for {many}: {choice.why}"
        elif len(choice.users) > 1:
            yield f"{name_of(choice.users[0])} runs beside {many}: {choice.why}"
