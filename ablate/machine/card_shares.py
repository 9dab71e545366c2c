"""What share of a card's dense arithmetic the stages get: a table to begin a forecast with.

From the first finished stage of a kind on a card on, what that took counts instead (`planning.timing`).
"""

from typing import NamedTuple

from ablate.machine.gpus import USE, card_in


class Share(NamedTuple):
    """One entry."""

    card: str
    work: str
    """Of which kind of stage; of a distillation, whether its teacher's answers were kept or it ran beside."""
    models: str
    share: float
    """Of the FLOP/s that the card's data sheet says, in 16 bits without sparsity."""
    source: str
    """counted: from kernels, bytes and FLOPs, at 60 % of the dense and 70 % of the float32 arithmetic, 80 % of the
    memory's bandwidth; scaled: from what was counted for another card; measured: on which machine."""
    date: str


SHARES = (
    Share("H100", "distill, kept", "1B from 8B", 0.14, "counted", "2026-11-30"),
    Share("H100", "distill, live", "1B from 8B", 0.26, "counted", "2026-11-30"),
    Share("A100", "distill, kept", "1B from 8B", 0.20, "counted", "2026-11-30"),
    Share("A100", "distill, live", "1B from 8B", 0.29, "scaled", "2026-11-30"),
)
"""None of them measured yet: adapters in float32, small micro-batches and eager layers as of that date."""


def share_of(model: str | None, work: str) -> float:
    """-> of the arithmetic of a card of that name; `gpus.USE` of what is in no entry."""
    card = card_in(model) if model else None
    return next((one.share for one in SHARES if (one.card, one.work) == (card, work)), USE)
