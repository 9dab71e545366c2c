"""distill: a student trained on the rows by class loss and by what a teacher says of the same tokens."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablate.core.values import EXTENSION, IDENTITY, Cards, Frozen, Int
from ablate.stages.inputs import fetched_model, source
from ablate.stages.sharing import shared
from ablate.stages.teacher_cache import TEACHER_CACHE, token_bytes
from ablate.stages.training_cost import NO_TEACHER, TeacherWork, training_cost
from ablate.store.job import Job
from ablate.store.kind import KINDS, Cost, Kind, Words
from ablate.store.sizes import ModelSizes, fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.field_types import BYTES, Dtype
from ablate.study.quantize import Quantize
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Distill as Recipe
from ablate.training.memory_estimate import Beside, States

if TYPE_CHECKING:
    from ablate.training.teaching import GivenTeacher


class DistillSettings(Frozen):
    """What decides a distillation, apart from the models and the rows."""

    recipe: Annotated[Recipe, IDENTITY]
    dtype: Annotated[Dtype, IDENTITY]
    seed: Annotated[Int, IDENTITY]
    quantize: Annotated[dict[str, Quantize], EXTENSION] = Field(default_factory=dict)
    """Of the inputs `student`, `teacher`, `teacher_2`, ... that are."""


class Distill(Kind[DistillSettings]):
    """Inputs: `teacher`, `student` (fetch), `rows`, maybe `teacher_adapter`, `student_adapter` (finetune).

    Of a loss across tokenizers also `teacher_rows`: the same rows in the teacher's own tokens and template.
    Aid: `teacher_cache`, without which the teacher runs beside the student.
    Of more teachers: `teacher_2`, `teacher_2_adapter`, `teacher_2_cache`, ..., each with a weight in the recipe.
    A fine-tuned student is merged with its adapter first; the result is a new adapter on top of that.
    """

    Settings = DistillSettings
    is_work = True
    spread = "weights"
    words = Words(30, "distilled", "distillation", work="distillation")

    @shared
    def run(self, job: Job) -> None:
        from ablate.data.tokenizers import load_tokenizer
        from ablate.training import training_run
        from ablate.training.adapters import Origin
        from ablate.training.loss import objective, own_objective
        from ablate.training.teaching import TaughtBy

        student, recipe = fetched_model(job.inputs["student"]), job.settings.recipe
        needs_tokenizer = recipe.writes_in_training or recipe.answers != "dataset"
        weights = student.weights
        training_run.train_stage(
            job,
            source(job, "student", job.settings.quantize.get("student")),
            objective(recipe),
            origin=Origin(weights.repo, weights.revision),
            taught_by=TaughtBy(_given_teachers(job), recipe.teacher_mean, recipe.features),
            own_objective=own_objective(recipe),
            tokenizer=load_tokenizer(student.tokenizer, weights.trust_remote_code) if needs_tokenizer else None,
        )

    def cards(self, settings: DistillSettings) -> Cards:
        return settings.recipe.cards

    def most_cards(self, settings: DistillSettings) -> int:
        return settings.recipe.batch_size  # a rank without a row of a step has nothing to do

    def check(self, folder: Path) -> None:
        from ablate.training.finished import check_training

        check_training(folder)

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        settings = self.settings_of(stage)
        names = ("student", *teachers_of(stage))
        sizes = {name: fetched_sizes(store, stage.inputs[name], settings.quantize.get(name)) for name in names}
        student = sizes.pop("student")
        rows = rows_sizes(store, stage.inputs["rows"])
        has_holdout = bool(rows and rows.holdout_loss_tokens)
        work = _all_work(
            _work(teacher, aids.get(f"{name}_cache"), student, settings.dtype, has_holdout=has_holdout)
            for name, teacher in sizes.items()
        )
        if student and "teacher_rows" in stage.inputs:
            work = _in_own_tokens(work, stage, store, student)
        if settings.recipe.features and student and (teacher := sizes["teacher"]):
            work = work._replace(beside=_with_states(work.beside, settings.recipe, teacher, student))
        return training_cost(settings.recipe, settings.dtype, student, stage.inputs["rows"], store, work)


DISTILL = Distill()
KINDS.register("distill")(DISTILL)


def teachers_of(stage: Stage) -> tuple[str, ...]:
    """-> the inputs of a distillation that are its teachers, in the order of their weights in its recipe."""
    return teacher_inputs(max(1, len(DISTILL.settings_of(stage).recipe.teachers)))


def _given_teachers(job: Job) -> "list[GivenTeacher]":
    from ablate.training.teaching import GivenTeacher

    weights = [one.weight for one in job.settings.recipe.teachers] or [1.0]
    caches = {name: job.inputs.get(f"{name}_cache") for name in teacher_inputs(len(weights))}
    if job.settings.recipe.features:  # of which a cache keeps the last layer alone
        caches = dict.fromkeys(caches)
    return [
        GivenTeacher(name, source(job, name, job.settings.quantize.get(name)), cache / "out" if cache else None, weight)
        for (name, cache), weight in zip(caches.items(), weights, strict=True)
    ]


def _work(
    teacher: ModelSizes | None, cache: Stage | None, student: ModelSizes | None, dtype: Dtype, *, has_holdout: bool
) -> TeacherWork:
    """-> how much of a teacher runs beside a student: of kept hidden states its head, of all else nothing.

    Of held-out rows hidden states are kept whatever the form.
    """
    if teacher is None or student is None:
        return NO_TEACHER
    if cache is None:
        beside = Beside((teacher,), output_bytes=teacher.hidden * BYTES[dtype])
        return TeacherWork(teacher.num_body, teacher.num_head, beside)
    settings = TEACHER_CACHE.settings_of(cache)
    asked = teacher.num_head if settings.form == "hidden" else 0
    loaded = teacher.num_head if has_holdout else asked
    kept = token_bytes(settings.form, dtype, teacher, student, settings.k)
    return TeacherWork(0, asked, Beside(heads=loaded, output_bytes=kept, kept=settings.form))


def _all_work(works: Iterable[TeacherWork]) -> TeacherWork:
    """-> of several teachers together."""
    works = tuple(works)
    teachers = tuple(model for work in works for model in work.beside.teachers)
    heads, outputs = sum(work.beside.heads for work in works), sum(work.beside.output_bytes for work in works)
    beside = Beside(teachers, heads, outputs, works[0].beside.kept if len(works) == 1 else None)
    return TeacherWork(sum(work.body for work in works), sum(work.head for work in works), beside)


def _with_states(beside: Beside, recipe: Recipe, teacher: ModelSizes, student: ModelSizes) -> Beside:
    """-> with the hidden states that are compared, and the projection that is trained between the two."""
    loss = recipe.features
    assert loss
    is_projected = loss.projection == "trained" or teacher.hidden != student.hidden
    projections = teacher.hidden * student.hidden if is_projected else 0
    pairs = {"evenly": student.layers, "last": 1}.get(str(loss.layers), len(loss.layers))
    states = States(teacher.layers, teacher.hidden, pairs, loss.kept_tensors, is_projected)
    return replace(beside, projections=projections, states=states)


def _in_own_tokens(work: TeacherWork, stage: Stage, store: Store, student: ModelSizes) -> TeacherWork:
    """-> the same for each of the student's tokens, where the teacher reads the rows in more or fewer of its own."""
    ours, theirs = (rows_sizes(store, stage.inputs[name]) for name in ("rows", "teacher_rows"))
    share = theirs.tokens / max(1, ours.tokens) if ours and theirs else 1.0
    model = fetched_sizes(store, stage.inputs["teacher"])
    is_projected = DISTILL.settings_of(stage).recipe.loss.needs == "rows"
    num_projections = 6 * student.hidden * model.hidden if model and is_projected else 0
    beside = replace(work.beside, projections=num_projections)
    return TeacherWork(int(work.body * share), int(work.head * share), beside)
