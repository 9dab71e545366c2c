"""A rehearsal: the whole study at a few steps a training and a few questions a task, to see that it runs."""

from typing import Final, TypeVar

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
    """-> the recipe at a few questions a task."""
    return recipe.model_copy(update={"limit": min(QUESTIONS, recipe.limit or QUESTIONS)})
