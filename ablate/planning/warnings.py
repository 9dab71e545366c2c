"""What may be meant in a study, but seldom is: warned of by validate, plan and run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ablate.core import disk
from ablate.core.errors import grouped_by_text
from ablate.core.values import Json, canonical
from ablate.data.rows import num_rows_in
from ablate.data.steps import num_steps
from ablate.planning.plan import Plan
from ablate.stages.rows import RowsSettings
from ablate.study.cells import Row, used_parts, work
from ablate.study.near_names import nearest
from ablate.study.rates import HIGH
from ablate.study.resolve import Setting
from ablate.study.schema import Study
from ablate.study.sources import repositories
from ablate.study.training_recipes import Train

NumRows: TypeAlias = Callable[[Setting], int | None]
"""Of training, as far as known."""
OF_THE_KD_LOSS = ("loss", "temperature", "scale_by_t2")


def num_rows_by_study(setting: Setting) -> int | None:
    """-> the rows to train on, by what the study's own file and `data.limit` say; None where only the hub knows."""
    data = setting.data
    in_file = num_rows_in(Path(data.source)) if Path(data.source).is_absolute() else None
    known = [number for number in (in_file, data.limit) if number is not None]
    return max(0, min(known) - data.holdout) if known else None


def study_warnings(study: Study, table_rows: tuple[Row, ...], num_rows: NumRows = num_rows_by_study) -> tuple[str, ...]:
    """-> what a reader should look at again in a study and the rows of its tables; nothing of it stops a run."""
    about = (_warm_up, _too_few_rows, _high_rate)
    each = (one for warn in about for row in table_rows for one in warn(row, num_rows(row.setting)))
    return (
        *_unused_pairs(study, table_rows),
        *_untrained_controls(study, table_rows),
        *(f"{subjects}: {text}" for subjects, text in grouped_by_text(each)),
        *_one_model(table_rows),
    )


def near_folders(table_rows: Sequence[Row], beside: Path) -> Iterator[str]:
    """-> names that are taken for the hub's, though a folder beside the study has nearly the same."""
    for repo in repositories(table_rows):
        path = beside / repo.id
        if repo.revision is None and path.parent.is_dir() and (near := nearest(path)):
            here = f"./{near.relative_to(beside)}"
            yield f"{repo.id!r} is taken for a {repo.type} of the hub; the folder {here} lies beside the study"


def _unused_pairs(study: Study, table_rows: Sequence[Row]) -> Iterator[str]:
    used = {row.setting.pair for row in table_rows}
    yield from (f"pair {pair} is in no ablation" for pair in study.pairs if pair not in used)


def _untrained_controls(study: Study, table_rows: Sequence[Row]) -> Iterator[str]:
    controls = (row for row in table_rows if row.name == row.control)
    names = dict.fromkeys(row.ablation for row in controls if row.model.endswith("/baseline"))
    if study.report.replicate and names:
        yield f"report.replicate: the control of {', '.join(names)} is not trained: no other seed could change it"


def _trainings(row: Row) -> Iterator[tuple[str, Train]]:
    """-> what is trained for a row: what a warning calls it, and its recipe."""
    setting = row.setting
    for part in used_parts(row):
        recipe = getattr(setting, part, None)
        if isinstance(recipe, Train):
            trained = f"{setting.pair} {part.replace('_', ' of the ')}"
            yield f"{row.ablation}/{row.name}" if part == "distill" else trained, recipe


def _warm_up(row: Row, num_rows: int | None) -> Iterator[tuple[str, str]]:
    for what, recipe in _trainings(row):
        steps = _steps(recipe, num_rows)
        if steps and recipe.warmup_steps * 2 >= steps:
            yield what, f"warm-up for {recipe.warmup_steps} of {steps} steps; train.warmup_steps says how many"


def _too_few_rows(row: Row, num_rows: int | None) -> Iterator[tuple[str, str]]:
    for what, recipe in _trainings(row):
        if num_rows is not None and num_rows < recipe.batch_size:
            why = f"batch_size is {recipe.batch_size}, and there are {num_rows} rows to train on"
            yield what, f"{why}: every step takes them all (data.limit, data.holdout and the data say how many)"


def _high_rate(row: Row, _: int | None) -> Iterator[tuple[str, str]]:
    for what, recipe in _trainings(row):
        if recipe.lr > HIGH:
            yield what, f"a learning rate of {recipe.lr:g} is far above what AdamW trains well with (1e-5 to 1e-2)"


def _steps(recipe: Train, num_rows: int | None) -> int | None:
    """-> the steps of a training; None where only the data know."""
    if num_rows is None:
        return recipe.max_steps
    return num_steps(num_rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)


def _one_model(table_rows: Sequence[Row]) -> Iterator[str]:
    """Rows of class loss alone that differ in nothing but the KD loss, which trains nothing there."""
    alike: dict[str, list[str]] = {}
    for row in table_rows:
        if row.model == "distill" and row.setting.distill.kd_ratio == 0:
            alike.setdefault(f"{row.ablation} {canonical(_trained_by(row))}", []).append(f"{row.ablation}/{row.name}")
    shared = ((name, key) for key, names in alike.items() if len(names) > 1 for name in names)
    why = "kd_ratio is 0, so only their KD curves differ: the models, and so the scores, are the same"
    yield from (f"{names}: {why}" for names, _ in grouped_by_text(shared))


def _trained_by(row: Row) -> dict[str, Json]:
    """-> the row's work without the teacher and the KD loss."""
    parts = {part: value for part, value in work(row).items() if part not in ("teacher", "finetune_teacher")}
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
