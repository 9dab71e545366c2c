"""Why a teacher is asked once, or runs beside its distillations, in the words of a plan's notes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ablate.core.text import data_size, duration
from ablate.planning.cache_forms import Choice, Group, User
from ablate.store.disk_speed import Speeds
from ablate.study.training_recipes import Distill

WRITES = "the student's answers are written while it trains"


def why_hidden(groups: Sequence[Group]) -> str:
    """-> what keeps one of these groups from vectors, or that vectors would be several."""
    reasons = [group.no_vector for group in groups if group.no_vector]
    if reasons:
        return reasons[0]
    return "the study says teacher_cache: hidden" if groups[0].ways == ("hidden",) else "their vectors would differ"


def why_none(recipe: Distill) -> str:
    """-> why such a distillation has its teacher beside it."""
    if recipe.writes_in_training:
        return WRITES
    if recipe.loss.crosses_tokenizers:
        return f"{recipe.loss.name} has it read the rows in its own tokens, and no cache is of those"
    if recipe.features:
        return "features need the teacher's layers"
    asked_for = recipe.teacher_cache
    return "the study says teacher_cache: none" if asked_for == "none" else "one distillation alone asks it, once"


def why_slow(num_bytes: float, speeds: Speeds, kept_s: float, live_s: float) -> str:
    """-> why answers are not kept that the disk takes and gives too slowly."""
    write, read = data_size(speeds.write), data_size(speeds.read)
    return (
        f"keeping {data_size(num_bytes)} of its answers, written at {write}/s and read at {read}/s, would take"
        f" {duration(kept_s)}, the live teacher about {duration(live_s)} on {speeds.device}"
    )


def not_measured(root: Path, error: OSError) -> str:
    """-> that the speed of a disk has no say in what a plan says."""
    why = error.strerror or error
    return (
        f"how fast the disk under {root} is could not be measured ({why}): what is kept of teachers' answers is chosen"
        " as if that took no time, and `run` may choose otherwise"
    )


def notes(choices: Iterable[Choice], name_of: Callable[[User], str]) -> Iterator[str]:
    """What a reader of the plan is told, of each teacher that several distillations ask, or that is to be kept.

    `name_of`: of a teacher.
    """
    for choice in choices:
        many = f"{len(choice.users)} distillations" if len(choice.users) > 1 else "one distillation"
        if choice.cache:
            yield f"{name_of(choice.users[0])} is asked once for {many}: {choice.why}"
        elif len(choice.users) > 1:
            yield f"{name_of(choice.users[0])} runs beside {many}: {choice.why}"
