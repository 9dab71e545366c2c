"""Answers that are kept and trained on again, and a share of own answers that rises when the held-out loss does."""

import random
from collections.abc import Sequence

from ablate.study.answer_settings import AdaptiveShare, Replay
from ablate.training.own_rows import rounded
from ablate.training.prompts import Answer


class ReplayBuffer:
    """The latest answers of the student, the oldest first (DistiLLM, Ko et al. 2024, 2402.03898, section 3.2).

    Of `reuse` answers trained on, one is new in the mean; the others are drawn from those kept, each at most once a
    step. Until there are enough, more are new. The paper draws for each batch whether all of it is new, replayed or
    the data's, and what is new becomes rarer with the steps, as 1 - t/T.
    """

    def __init__(self, settings: Replay, kept: Sequence[Answer] = ()) -> None:
        self.settings = settings
        self.kept = list(kept)

    def num_new(self, num_rows: int, num_answers: int, draw: str) -> int:
        """-> of the rows that are the student's at a step, those that it writes anew; `draw`: of which step."""
        wanted = rounded(num_rows / self.settings.reuse, f"new/{draw}")
        return max(wanted, num_rows - len(self.kept) // num_answers)

    def drawn(self, num: int, draw: str) -> list[Answer]:
        """-> so many of those kept."""
        return random.Random(f"ablate/replay/{draw}").sample(self.kept, num)

    def keep(self, answers: Sequence[Answer]) -> None:
        self.kept = [*self.kept, *answers][-self.settings.capacity :]


def next_share(share: float, loss: float, before: float, settings: AdaptiveShare) -> float:
    """-> the share after a look at the held-out loss L: min(share + step, 1) where L > L before + tolerance.

    Ko et al. 2024, 2402.03898, algorithm 1. There it is the probability that a batch is the student's, here the share
    of each batch that is; and the authors' code compares with the loss at the last rise (at first with the untrained
    student's), not with the last look's, and takes the class loss alone.
    """
    return min(share + settings.step, 1.0) if loss > before + settings.tolerance else share
