"""What a training costs, whatever it learns from: the student's passes, and those of a teacher beside it."""

from typing import NamedTuple

from ablate.data.steps import num_steps
from ablate.stages import memory_estimate
from ablate.stages.rows import longest_row
from ablate.store.kind import Cost
from ablate.store.sizes import ModelSizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.training_recipes import Train


class TeacherWeights(NamedTuple):
    """Of a teacher that runs beside a student: how many are loaded, and how many a token is multiplied with."""

    loaded: int
    body: int
    head: int


NO_TEACHER = TeacherWeights(0, 0, 0)


def training_cost(
    recipe: Train,
    dtype: str,
    student: ModelSizes | None,
    rows: Stage,
    store: Store,
    teacher: TeacherWeights = NO_TEACHER,
) -> Cost:
    """Counts 4 FLOPs a weight and token of the student (there and back, as through frozen weights), 2 of a teacher."""
    sizes = rows_sizes(store, rows)
    if student is None or sizes is None:
        return Cost()
    steps = num_steps(sizes.rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
    share = steps * recipe.batch_size / max(sizes.rows, 1)
    tokens, scored = int(sizes.tokens * share), int(sizes.loss_tokens * share)
    flops = 4.0 * (tokens * student.num_body + scored * student.num_head)
    flops += 2.0 * (tokens * teacher.body + scored * teacher.head)
    num_trained, longest = _num_trained(recipe, student), longest_row(rows, sizes)
    held = memory_estimate.training(recipe, student, teacher.loaded, num_trained, longest, dtype)
    return Cost(tokens, flops, num_trained * 4, held)


def _num_trained(recipe: Train, model: ModelSizes) -> int:
    if recipe.lora is None:
        return model.num_params
    # two thin matrices beside each adapted one; an adapted weight is about hidden x hidden (attention) to 4x that
    layers = max(1, model.num_body // (12 * model.hidden**2))
    return layers * len(recipe.lora.target_modules) * recipe.lora.rank * 4 * model.hidden
