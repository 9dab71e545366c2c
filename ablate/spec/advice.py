"""What may be meant in a study, but seldom is."""

from collections.abc import Iterator

from ablate.errors import grouped
from ablate.spec.cells import Row, rows, used_parts
from ablate.spec.schema import Data, Study, Train


def warnings(study: Study) -> tuple[str, ...]:
    """-> what a reader should look at again; nothing of it stops a run."""
    made = rows(study)
    long = grouped(told for row in made for told in _warm_up(row))
    return (*_unused_pairs(study, made), *(f"{subjects}: {text}" for subjects, text in long))


def _unused_pairs(study: Study, made: tuple[Row, ...]) -> Iterator[str]:
    used = {row.setting.pair for row in made}
    yield from (f"pair {pair} is in no ablation" for pair in study.pairs if pair not in used)


def _warm_up(row: Row) -> Iterator[tuple[str, str]]:
    setting = row.setting
    for part in used_parts(row):
        recipe = getattr(setting, part, None)
        steps = _most_steps(recipe, setting.data) if isinstance(recipe, Train) else None
        if isinstance(recipe, Train) and steps is not None and recipe.warmup_steps * 2 >= steps:
            trained = f"{setting.pair} {part.replace('_', ' of the ')}"
            what = f"{row.ablation}/{row.name}" if part == "distill" else trained
            length = f"{recipe.max_steps} steps" if recipe.max_steps else f"at most {steps} steps"
            yield what, f"warm-up for {recipe.warmup_steps} of {length}; train.warmup_steps says how many"


def _most_steps(recipe: Train, data: Data) -> int | None:
    """-> the steps of a training, or the most that `data.limit` allows; None where only the data know."""
    if recipe.max_steps:
        return recipe.max_steps
    if data.limit is None:
        return None
    num_rows = data.limit - data.holdout
    a_pass = num_rows // recipe.batch_size if recipe.drop_last else -(-num_rows // recipe.batch_size)
    return max(1, a_pass) * (recipe.epochs or 1)
