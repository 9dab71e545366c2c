"""Which rows of a step the student writes itself, and the rows that are made of what it wrote."""

import random
from collections.abc import Collection, Sequence

from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.training.batches import StepRows
from ablate.training.prompts import Answer


def rounded(wanted: float, draw: str) -> int:
    """-> a whole number that is `wanted` in the mean: the one below or the one above, by a counted draw."""
    below = int(wanted)
    return below + (random.Random(f"ablate/rounded/{draw}").random() < wanted - below)


def own_rows(step: StepRows, share: float, seed: int) -> tuple[int, ...]:
    """-> the rows of a step that the student writes, in random order; those without a loss-bearing token never.

    Always `share` of them, and not each by a draw of its own, nor all or none of a step (TRL): the same in the mean,
    with less noise from step to step. What is left of a row at a step is left to a draw, so that the mean is exact.
    """
    possible = [index for index in step.indices if step.rows.num_loss[index]]
    draw = f"{seed}/{step.step}"
    return tuple(random.Random(f"ablate/own/{draw}").sample(possible, rounded(share * len(possible), f"own/{draw}")))


def with_answers(step: StepRows, replaced: Collection[int], answers: Sequence[Answer]) -> StepRows:
    """-> the step with answers of the student in the place of some rows: the others first, then each answer a row."""
    others = [index for index in step.indices if index not in replaced]
    rows = lay([*(_row(step.rows, index) for index in others), *(answer.token_row for answer in answers)])
    return StepRows(step.step, rows, tuple(range(len(rows))), frozenset(range(len(others), len(rows))))


def _row(rows: TokenRows, index: int) -> TokenRow:
    ids, loss_mask = rows.row(index)
    return TokenRow(ids.tolist(), [bool(counts) for counts in loss_mask])


def repetition(ids: Sequence[int], num: int = 4) -> float:
    """-> share of an answer's runs of `num` tokens that it has before (seq-rep-4, Welleck et al. 2019, 1908.04319)."""
    runs = [tuple(ids[begin : begin + num]) for begin in range(len(ids) - num + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
