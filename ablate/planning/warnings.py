"""What may be meant in a study, but seldom is: warned of by validate, plan and run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ablate.core import disk
from ablate.core.errors import grouped_by_text
from ablate.core.values import Json, canonical, identity
from ablate.data.steps import num_steps
from ablate.planning.plan import Plan
from ablate.stages.rows import RowsSettings
from ablate.study.answer_settings import ANSWER_FIELDS
from ablate.study.cells import Row, used_parts, work
from ablate.study.effect import layered, meaningless
from ablate.study.named_models import adapter_notes, with_bases
from ablate.study.near_names import nearest
from ablate.study.rates import HIGH
from ablate.study.resolve import Resolver, Setting
from ablate.study.row_files.files import num_rows_in
from ablate.study.schema import Study
from ablate.study.sources import models_of, repositories
from ablate.study.training_recipes import Train

NumRows: TypeAlias = Callable[[Setting], int | None]
"""Of training, as far as known."""
MAYBE_IN_VAIN = (*ANSWER_FIELDS, "teacher", "teacher_mean", "teacher_top_k_rest")
"""Of a distillation: settings that mean nothing beside some of the others."""
OF_THE_KD_LOSS = ("loss", "temperature", "scale_by_t2", "teachers", "teacher_mean")


def num_rows_by_study(setting: Setting) -> int | None:
    """-> the rows to train on, by what the study's own file and `data.limit` say; None where only the hub knows."""
    data = setting.data
    in_file = num_rows_in(Path(data.source), data.split) if Path(data.source).is_absolute() else None
    known = [number for number in (in_file, data.limit) if number is not None]
    return max(0, min(known) - data.holdout) if known else None


def study_warnings(study: Study, table_rows: tuple[Row, ...], num_rows: NumRows = num_rows_by_study) -> tuple[str, ...]:
    """-> what a reader should look at again in a study and the rows of its tables; nothing of it stops a run."""
    doubts = (warning for row in table_rows for warning in _trainings(row, num_rows(row.setting)))
    return (
        *_adapters(table_rows),
        *_unused_pairs(study, table_rows),
        *_untrained_controls(study, table_rows),
        *(f"{subjects}: {text}" for subjects, text in grouped_by_text(doubts)),
        *_one_model(table_rows),
        *_greedy(table_rows),
        *_in_vain(study, table_rows),
    )


def near_folders(table_rows: Sequence[Row], beside: Path) -> Iterator[str]:
    """-> names that are taken for the hub's, though a folder beside the study has nearly the same."""
    for repo in repositories(table_rows):
        path = beside / repo.id
        if repo.revision is None and path.parent.is_dir() and (near := nearest(path)):
            here = f"./{near.relative_to(beside)}"
            yield f"{repo.id!r} is taken for a {repo.type} of the hub; the folder {here} lies beside the study"


def _adapters(table_rows: Sequence[Row]) -> Iterator[str]:
    """An adapter named as a model, and one that lies beside a model and is not used."""
    refs = {(ref.model, ref.base): ref for row in table_rows for ref in models_of(row.setting)}
    yield from dict.fromkeys(note for ref in refs.values() for one in with_bases(ref) for note in adapter_notes(one))


def _greedy(table_rows: Sequence[Row]) -> Iterator[str]:
    """A temperature that many tasks pass over: their files say do_sample: false, which lm-eval heeds first."""
    recipes = {canonical(identity(row.setting.evaluate)): row.setting.evaluate for row in table_rows}
    askings = [recipe.asking(name) for recipe in recipes.values() for name in recipe.task_names]
    if any(one.gen_kwargs.get("temperature") and "do_sample" not in one.gen_kwargs for one in askings):
        yield "evaluate.gen_kwargs: a temperature without do_sample: true is nothing to tasks that say do_sample: false"


def _in_vain(study: Study, table_rows: Sequence[Row]) -> Iterator[str]:
    """What the file says of answers or teachers for all distillations, and none of them is made with."""
    named = [name for name in MAYBE_IN_VAIN if name in study.distill]
    if not named:
        return
    resolver = Resolver(study)
    layered_rows = list(layered(resolver, (row for row in table_rows if row.model == "distill")))
    for name in named:
        yield from meaningless(resolver, layered_rows, ("distill", name), study.distill[name])


def _unused_pairs(study: Study, table_rows: Sequence[Row]) -> Iterator[str]:
    used = {row.setting.pair for row in table_rows} | {one.pair for row in table_rows for one in row.setting.teachers}
    yield from (f"pair {pair} is in no ablation" for pair in study.pairs if pair not in used)


def _untrained_controls(study: Study, table_rows: Sequence[Row]) -> Iterator[str]:
    controls = (row for row in table_rows if row.name == row.control)
    names = dict.fromkeys(row.ablation for row in controls if row.model.endswith("/baseline"))
    if study.report.replicate and names:
        yield f"report.replicate: the control of {', '.join(names)} is not trained: no other seed could change it"


def _trainings(row: Row, num_rows: int | None) -> Iterator[tuple[str, str]]:
    """-> each training of a row, and what is odd about it."""
    for part in used_parts(row):
        recipe = getattr(row.setting, part, None)
        if isinstance(recipe, Train):
            trained = f"{row.setting.pair} {part.replace('_', ' of the ')}"
            what = f"{row.ablation}/{row.name}" if part == "distill" else trained
            yield from ((what, doubt) for doubt in _doubts(recipe, num_rows))


def _doubts(recipe: Train, num_rows: int | None) -> Iterator[str]:
    steps = _steps(recipe, num_rows)
    if steps and recipe.warmup_steps * 2 >= steps:
        yield f"warm-up for {recipe.warmup_steps} of {steps} steps; train.warmup_steps says how many"
    if num_rows and recipe.batch_size > num_rows:
        what = f"batch_size {recipe.batch_size} is more than the {num_rows} rows to train on"
        yield f"{what}: every step takes all of them, so that an epoch is one step"
    if recipe.lr > HIGH:
        yield f"a learning rate of {recipe.lr:g} is far above what AdamW trains well with (1e-5 to 1e-2)"


def _steps(recipe: Train, num_rows: int | None) -> int | None:
    """-> the steps of a training; None where only the data know."""
    if num_rows is None:
        return recipe.max_steps
    return num_steps(num_rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)


def _one_model(table_rows: Sequence[Row]) -> Iterator[str]:
    """Rows of class loss alone that differ in nothing but the KD loss, which trains nothing there."""
    alike: dict[str, list[str]] = {}
    for row in table_rows:
        recipe = row.setting.distill
        if row.model == "distill" and recipe.kd_ratio == 0 and not recipe.writes_in_training:
            alike.setdefault(f"{row.ablation} {canonical(_trained_by(row))}", []).append(f"{row.ablation}/{row.name}")
    shared = ((name, key) for key, names in alike.items() if len(names) > 1 for name in names)
    why = "kd_ratio is 0, so only their KD curves differ: the models, and so the scores, are the same"
    yield from (f"{names}: {why}" for names, _ in grouped_by_text(shared))


def _trained_by(row: Row) -> dict[str, Json]:
    """-> the row's work without the KD loss, and without the teacher where it wrote no answers."""
    unused = () if row.setting.distill.answers == "teacher" else ("teachers",)
    parts = {part: value for part, value in work(row).items() if part not in unused}
    recipe = parts["distill"]
    assert isinstance(recipe, dict)
    return parts | {"distill": {name: value for name, value in recipe.items() if name not in OF_THE_KD_LOSS}}


def plan_warnings(plan: Plan) -> tuple[str, ...]:
    """-> what to look at again, by the rows that are made where they are, else by what the study says of them."""
    counts = dict(_row_counts(plan))

    def num_rows(setting: Setting) -> int | None:
        known = counts.get(setting.data.model_dump_json())
        return num_rows_by_study(setting) if known is None else known

    return study_warnings(plan.study, plan.rows, num_rows)


def _row_counts(plan: Plan) -> Iterator[tuple[str, int]]:
    """-> data, as JSON, and its training rows, of every rows stage that is done: they depend on no tokenizer."""
    for stage in plan.stages:
        if isinstance(stage.settings, RowsSettings) and plan.store.done(stage):
            summary: Any = disk.read_json(plan.store.folder(stage) / "out" / "summary.json")
            yield stage.settings.data.model_dump_json(), int(summary["train"]["rows"])
