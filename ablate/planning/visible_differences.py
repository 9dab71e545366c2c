"""Which differences between models a study's tasks have too few questions to show."""

from ablate.stages.task_sizes import TASKS, num_questions
from ablate.study.rehearsal import rehearsed_questions
from ablate.study.schema import Study


def visible_differences(study: Study) -> dict[str, float]:
    """Task -> the smallest difference to the control that its questions can show (answers correlating by 0.95)."""
    recipe = rehearsed_questions(study.evaluate) if study.rehearsal else study.evaluate
    limits = {task: recipe.asking(task).limit for task in recipe.task_names}
    known = {
        task: num_questions(task, limit) for task, limit in limits.items() if task in TASKS or (limit and limit >= 1)
    }
    return {task: smallest_visible_difference(num) for task, num in known.items()}


def smallest_visible_difference(num: int, correlation: float = 0.95) -> float:
    """-> 2.80 SE_d: the difference of two accuracies near 0.5 that is seen with 80 % power (two-sided 5 %).

    SE_d = sqrt(2 (1 - r) p (1 - p) / n) of paired answers that correlate by r (Miller 2024, 2411.00640).
    """
    return 2.80 * float((2 * (1 - correlation) * 0.25 / num) ** 0.5)
