"""What a training costs, whatever it learns from: the student's passes, and those of a teacher beside it."""

from dataclasses import replace
from typing import NamedTuple

from ablate.data.steps import num_steps
from ablate.stages.generate import longest_trained_row, trained_rows
from ablate.store.kind import Cost
from ablate.store.sizes import ModelSizes, RowsSizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.field_types import Dtype
from ablate.study.policy import policy_of
from ablate.study.training_recipes import Distill, Train
from ablate.training.forward_memory import ForwardMemory, of_text
from ablate.training.layer_shapes import num_trained
from ablate.training.memory_estimate import Beside, TrainingMemory


class TeacherWork(NamedTuple):
    """Of teachers beside a student: with how many weights a token is multiplied, and what they hold."""

    body: int = 0
    head: int = 0
    beside: Beside = Beside()


NO_TEACHER = TeacherWork()


def training_cost(
    recipe: Train,
    dtype: Dtype,
    student: ModelSizes | None,
    rows: Stage,
    store: Store,
    teacher: TeacherWork = NO_TEACHER,
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
    if isinstance(recipe, Distill) and recipe.answers == "mixed":
        flops += writing.flops(teacher.body, teacher.head)
    longest, beside = longest_trained_row(store, rows, sizes), teacher.beside
    if writing.new and isinstance(recipe, Distill):
        held_writing = ForwardMemory(student, dtype, of_text(recipe.sampling)).held_writing(longest, writing.length)
        beside = replace(beside, writing=held_writing.ways[0].memory.beside_weights)
        longest += writing.length
    held = TrainingMemory(recipe, student, dtype, beside).held(longest)
    return Cost(tokens, flops, num_trained(student, recipe.lora) * 4, held)


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
