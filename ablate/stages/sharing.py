"""A stage whose processes share its rows, one a card: they come together before its work and after it."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeAlias

from ablate.store.job import Job

Run: TypeAlias = Callable[[Any, Job], None]


def shared(run: Run) -> Run:
    """-> a kind's `run` in each of a stage's processes: it begins once all have come, and ends when all have ended.

    Where one is asked to stop, all hear of it together.
    """

    @wraps(run)
    def run_shared(kind: Any, job: Job) -> None:
        if job.num_ranks == 1:
            return run(kind, job)
        from ablate.training import ranks

        joined = ranks.join(job)
        run(kind, replace(job, is_stopping=lambda: joined.is_stopping))
        joined.gather(None)
        return None

    return run_shared
