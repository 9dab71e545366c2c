"""What more training seeds would show of a study that has one, and what they would cost."""

from typing import NamedTuple

from ablate.results.collect import Results

SEEDS = 3


class MoreSeeds(NamedTuple):
    """Of the primary metric."""

    seeds: int
    visible: float
    """The smallest difference that would be seen with 80 % power."""
    seconds: float
    """Device time of the further trainings and evaluations."""


def more_seeds(results: Results) -> MoreSeeds | None:
    """-> None where the study has several seeds, or nothing was measured yet."""
    return None
