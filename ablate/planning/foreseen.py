"""Models and rows that are not here yet, as far as a question about memory needs them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablate.core.errors import StageError
from ablate.core.hub import Repo, is_commit, is_offline
from ablate.planning.plan import Plan
from ablate.stages.fetch import FetchSettings
from ablate.stages.rows import RowsSettings
from ablate.store.hub_sizes import sizes_at_hub
from ablate.store.sizes import ModelSizes, RowsSizes, fetched_sizes, model_sizes, rows_sizes
from ablate.store.store import Store

ROWS = RowsSizes(rows=1, tokens=10**9, loss_tokens=10**9, holdout_loss_tokens=0)
"""Whose longest is as long as the study lets it be."""


class Foreseen(NamedTuple):
    """What costs can be asked with."""

    store: Store
    """Knows sizes of what is not here: no plan is to be made of it, since these rows are not counted."""
    notes: tuple[str, ...]
    """What was assumed, and what could not be known."""


def foreseen(plan: Plan) -> Foreseen:
    """-> with the sizes of models from this disk, or from the headers of their files at the hub."""
    store = Store(plan.store.root)
    return Foreseen(store, tuple(dict.fromkeys([*_foresee_models(plan, store), *_foresee_rows(plan, store)])))


def _foresee_models(plan: Plan, store: Store) -> Iterator[str]:
    """-> what came of it; a hub that does not answer for one model is not asked for the others."""
    is_asked = not is_offline()
    for stage in plan.stages:
        settings = stage.settings
        if not isinstance(settings, FetchSettings) or settings.repo_type != "model" or fetched_sizes(store, stage):
            continue
        try:
            if sizes := _sizes(settings, is_asked=is_asked):
                store.foreseen[stage.key] = sizes
                yield "models that are not here are known by the headers of their files"
        except StageError as error:
            is_asked = is_asked and error.failure != "network"
            yield str(error)


def _sizes(settings: FetchSettings, *, is_asked: bool) -> ModelSizes | None:
    if settings.path:
        return model_sizes(Path(settings.path))
    if settings.repo is None or not is_asked or not is_commit(settings.revision):
        return None
    return sizes_at_hub(Repo("model", settings.repo, settings.revision))


def _foresee_rows(plan: Plan, store: Store) -> Iterator[str]:
    for stage in plan.stages:
        if isinstance(stage.settings, RowsSettings) and rows_sizes(store, stage) is None:
            store.foreseen[stage.key] = ROWS
            yield (
                "rows are not here: they count as long as the study lets them be, and a teacher as asked beside each"
                " student, which may turn out to be done once before"
            )
