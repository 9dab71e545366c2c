"""Which rows belong to which optimizer step: arithmetic and order, free of torch so that a plan can use it."""

import random
from functools import lru_cache


def steps_per_epoch(num_rows: int, batch_size: int, drop_last: bool) -> int:
    """A last, partial batch counts unless `drop_last`; it always counts where it is the only one."""
    whole, rest = divmod(num_rows, batch_size)
    return whole if rest == 0 or (drop_last and whole) else whole + 1


def num_steps(num_rows: int, batch_size: int, epochs: int | None, max_steps: int | None, drop_last: bool) -> int:
    """-> optimizer steps of a training; 0 where there are no rows. `max_steps`, where said, decides alone."""
    per_epoch = steps_per_epoch(num_rows, batch_size, drop_last)
    if per_epoch == 0 or max_steps is not None:
        return min(per_epoch, 1) * (max_steps or 0)
    return per_epoch * (epochs or 1)


@lru_cache(maxsize=2)
def order(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """-> the rows of one epoch (0 the first) in the order they are seen."""
    rows = list(range(num_rows))
    random.Random(f"ablate/{seed}/{epoch}").shuffle(rows)
    return tuple(rows)


def rows_of_step(step: int, num_rows: int, batch_size: int, drop_last: bool, seed: int) -> tuple[int, ...]:
    """-> the rows of optimizer step `step` (1 the first)."""
    epoch, index = divmod(step - 1, steps_per_epoch(num_rows, batch_size, drop_last))
    return order(num_rows, seed, epoch)[index * batch_size : (index + 1) * batch_size]
