"""What a training costs, whatever it learns from: the student's passes, and those of a teacher beside it."""

from typing import NamedTuple

from ablate.data.steps import num_steps
from ablate.stages.generate import longest_trained_row, trained_rows
from ablate.store.kind import Cost
from ablate.store.sizes import ModelSizes, RowsSizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.field_types import BYTES
from ablate.study.module_names import is_pattern
from ablate.study.policy import policy_of
from ablate.study.training_recipes import Distill, Lora, Train
from ablate.training import memory_estimate

LINEAR_A_LAYER = 7
"""Linear modules of a Llama's layer."""


class TeacherWeights(NamedTuple):
    """Of a teacher that runs beside a student: how many are loaded, and how many a token is multiplied with."""

    loaded: int
    body: int
    head: int
    projections: int = 0
    """Trained beside the student."""
    states: int = 0
    """Numbers in a token's hidden states, where those of all layers are held."""


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
    sizes = trained_rows(store, rows)
    if student is None or sizes is None:
        return Cost()
    steps = num_steps(sizes.rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
    share = steps * recipe.batch_size / max(sizes.rows, 1)
    writing = _writing(recipe, sizes, share) if isinstance(recipe, Distill) else NO_WRITING
    tokens = int(sizes.tokens * share * (1 - writing.share)) + writing.prompts + writing.answers
    scored = int(sizes.loss_tokens * share * (1 - writing.share)) + writing.answers
    flops = 4.0 * (tokens * student.num_body + scored * student.num_head)
    flops += 2.0 * (tokens * teacher.body + scored * teacher.head)
    flops += writing.flops(student.num_body, student.num_head)
    flops += 2.0 * _scored_twice(recipe, writing) * (student.num_head + teacher.head)
    longest, beside = longest_trained_row(store, rows, sizes), 0
    if writing.new:
        longest += writing.length
        beside = memory_estimate.keys_and_values(student, longest, dtype)
    if isinstance(recipe, Distill) and recipe.answers == "mixed":
        flops += writing.flops(teacher.body, teacher.head)
    beside += longest * teacher.states * BYTES[dtype]
    num_trained = _num_trained(recipe, student)
    num_moved = num_trained + teacher.projections
    held = memory_estimate.training(recipe, student, teacher.loaded, num_moved, longest, dtype, beside)
    return Cost(tokens, flops, num_trained * 4, held)


class Writing(NamedTuple):
    """What a training's student writes and learns from, all steps together, each answer as long as it may be."""

    share: float
    """Of the rows trained on that are the student's."""
    prompts: int
    """Tokens."""
    answers: int
    """Tokens."""
    new: float
    """Share of these that is written for the step."""
    length: int
    """Tokens of an answer."""

    def flops(self, num_body: int, num_head: int) -> float:
        """Of a model that writes: 2 a weight and token, with the head at each token written."""
        return 2.0 * self.new * ((self.prompts + self.answers) * num_body + self.answers * num_head)


NO_WRITING = Writing(0.0, 0, 0, 0.0, 0)


def _writing(recipe: Distill, sizes: RowsSizes, passes: float) -> Writing:
    """`passes`: how often the rows are gone over."""
    if not recipe.writes_in_training:
        return NO_WRITING
    replay, sampling = recipe.replay, recipe.sampling
    share = recipe.student_fraction
    if replay and replay.adaptive:
        share = (share + 1) / 2  # it rises, nobody knows how far
    num = passes * share * sampling.num_answers
    prompts, answers = num * (sizes.tokens - sizes.loss_tokens), num * sizes.rows * sampling.max_new_tokens
    return Writing(share, int(prompts), int(answers), 1 / replay.reuse if replay else 1.0, sampling.max_new_tokens)


def _scored_twice(recipe: Train, writing: Writing) -> int:
    """-> tokens of which the heads are asked twice: for what the whole answer is given, and for the gradient."""
    policy = policy_of(recipe) if isinstance(recipe, Distill) else None
    return writing.answers if policy and policy.needs_whole_answers else 0


def _num_trained(recipe: Train, model: ModelSizes) -> int:
    if recipe.lora is None:
        return model.num_params
    # two thin matrices beside each adapted one; an adapted weight is about hidden x hidden (attention) to 4x that
    layers = max(1, model.num_body // (12 * model.hidden**2))
    modules = layers * _num_adapted(recipe.lora)
    num = modules * recipe.lora.rank * 4 * model.hidden
    if recipe.lora.use_dora:
        num += modules * 2 * model.hidden  # a norm for each output
    return num + sum(_num_saved(name, model, layers) for name in recipe.lora.modules_to_save)


def _num_adapted(lora: Lora) -> int:
    """-> modules of a layer that get an adapter: those that are named, or about as many as a Llama's layer has."""
    is_open = lora.is_all_linear or any(map(is_pattern, lora.target_modules))
    return LINEAR_A_LAYER if is_open else len(lora.target_modules)


def _num_saved(name: str, model: ModelSizes, layers: int) -> int:
    """-> weights of a module that is trained whole: of an embedding or a head; else of a matrix in every layer."""
    is_vocabulary = any(word in name for word in ("embed", "head", "wte"))
    return model.num_head if is_vocabulary else layers * 4 * model.hidden**2
