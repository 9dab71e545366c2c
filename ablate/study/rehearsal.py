"""A rehearsal: the whole study at a few steps a training and a few questions a task, to see that it runs."""

from typing import Final, TypeVar

from ablate.study.asked_task import AskedTask
from ablate.study.evaluation_settings import Evaluate
from ablate.study.schema import Study
from ablate.study.training_recipes import Train

T = TypeVar("T", bound=Train)

STEPS: Final = 8
WARMUP_STEPS: Final = 2
QUESTIONS: Final = 16


def rehearse(study: Study) -> Study:
    """-> the study as a rehearsal, under a name of its own."""
    if study.rehearsal:
        return study
    return study.model_copy(update={"rehearsal": True, "name": rehearsal_name(study.name)})


def rehearsal_name(name: str) -> str:
    return f"{name[:54]}-rehearsal"


def rehearsed_training(recipe: T) -> T:
    """-> the recipe at a few optimizer steps."""
    steps = min(STEPS, recipe.max_steps or STEPS)
    return recipe.model_copy(update={"epochs": None, "max_steps": steps, "warmup_steps": WARMUP_STEPS})


def rehearsed_questions(recipe: Evaluate) -> Evaluate:
    """-> the recipe at a few questions a task; a part of them is taken for more."""
    tasks = tuple(_rehearsed_task(task) for task in recipe.tasks)
    return recipe.model_copy(update={"limit": _few(recipe.limit), "tasks": tasks}).shortest()


def _rehearsed_task(task: AskedTask | str) -> AskedTask | str:
    if isinstance(task, str) or task.limit is None:
        return task
    return task.model_copy(update={"limit": _few(task.limit)})


def _few(limit: float | str | None) -> int:
    return min(QUESTIONS, limit) if isinstance(limit, int) else QUESTIONS
