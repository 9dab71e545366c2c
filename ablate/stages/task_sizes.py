"""How much a task asks, as far as known without its data: counted on the validation sets of those asked most."""

import math
from typing import NamedTuple


class TaskSize(NamedTuple):
    """Of a task's questions."""

    questions: int
    tokens: int
    """That a question forwards with lm-eval's own model class."""


TASKS = {
    "truthfulqa_mc2": TaskSize(817, 1657),
    "hellaswag": TaskSize(10042, 371),
    "commonsense_qa": TaskSize(1221, 52),
}
UNKNOWN_TASK = TaskSize(1000, 400)


def task_size(task: str) -> TaskSize:
    return TASKS.get(task, UNKNOWN_TASK)


def num_questions(task: str, limit: float | None) -> int:
    """-> how many questions a task puts; a limit below 1 is a part of them, rounded up as lm-eval does."""
    questions = task_size(task).questions
    if limit is None:
        return questions
    return math.ceil(questions * limit) if limit < 1 else min(questions, int(limit))
