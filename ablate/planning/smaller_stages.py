"""What a user can change of a study so that a stage holds less of a card, and what it holds then."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ablate.stages.distill import teachers_of
from ablate.store.memory import Held, Way
from ablate.store.stage import Stage
from ablate.study.training_recipes import Lora

ABSENT: Final = object()
"""Of a stage that trains nothing."""


def smaller(stage: Stage, held_of: Callable[[Stage], Held | None]) -> Iterator[tuple[str, Held]]:
    """-> each change in words, and what the stage then holds."""
    for words, settings in _changes(stage):
        if less := held_of(replace(stage, settings=settings)):
            yield words, less


def _changes(stage: Stage) -> Iterator[tuple[str, Any]]:
    settings: Any = stage.settings
    recipe: Any = getattr(settings, "recipe", None)
    lora: Any = getattr(recipe, "lora", ABSENT)
    if lora is None:
        with_lora = settings.model_copy(update={"recipe": recipe.model_copy(update={"lora": Lora()})})
        yield "lora instead of every weight", with_lora
    can_train = lora is ABSENT or (lora is not None and not lora.use_dora)
    for words, quantize in _quantized(stage, settings.quantize, can_train=can_train):
        yield words, settings.model_copy(update={"quantize": quantize})


def _quantized(stage: Stage, quantize: Any, *, can_train: bool) -> Iterator[tuple[str, Any]]:
    """`can_train`: whether what is trained of a model leaves the others in few bits (adapters alone, no DoRA)."""
    if isinstance(quantize, Mapping):  # of teachers and student, each by its input's name
        teachers = {**quantize, **dict.fromkeys(teachers_of(stage), "nf4")}
        yield "quantize: nf4 of the teacher", teachers
        if can_train:
            yield "quantize: nf4 of teacher and student", {**teachers, "student": "nf4"}
    elif quantize != "nf4" and can_train:
        yield "quantize: nf4", "nf4"


def shortened(held: Held, times: int) -> Held:
    """-> with rows so many times shorter: what is kept of them shrinks as they do, what passes not for certain."""
    memories = [(way, way.memory._replace(kept=way.memory.kept // times)) for way in held.ways]
    ways = tuple(Way(way.changes, memory, way.is_offloaded) for way, memory in memories)
    return held._replace(ways=ways, estimate=ways[0].memory.total)
