"""Which rows some trainings read: what is made of rows in advance is made of those alone."""

from collections.abc import Sequence
from typing import Annotated

from ablate.core.values import IDENTITY, Bool, Frozen, Int
from ablate.data.steps import rows_of_step
from ablate.store.sizes import RowsSizes


class Use(Frozen):
    """The first steps of a training: which rows it reads."""

    seed: Annotated[Int, IDENTITY]
    batch_size: Annotated[Int, IDENTITY]
    num_steps: Annotated[Int, IDENTITY]
    drop_last: Annotated[Bool, IDENTITY]


def rows_read(uses: Sequence[Use] | None, num_rows: int) -> Sequence[int]:
    """-> the rows that they read, of so many; None: all."""
    if uses is None or not num_rows:
        return range(num_rows)
    steps = ((use, step) for use in uses for step in range(1, use.num_steps + 1))
    return sorted({
        row for use, step in steps for row in rows_of_step(step, num_rows, use.batch_size, use.drop_last, use.seed)
    })  # fmt: skip


def share_read(uses: Sequence[Use] | None, rows: RowsSizes) -> float:
    """-> at most which share of the training rows they read."""
    num_read = rows.rows if uses is None else sum(use.num_steps * use.batch_size for use in uses)
    return min(1.0, num_read / max(rows.rows, 1))
