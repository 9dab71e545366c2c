"""Rows of random tokens whose lengths are spread like Alpaca's; made with the standard library alone."""

import math
import random
from collections.abc import Sequence

from benchmarks.setup import MICRO_BATCH

MEAN = 200
"""Tokens a row; yahma/alpaca-cleaned in chat turns of Llama 3: 10.9 million in 51,760 rows."""
OFFSET = 30
"""The chat template's part."""
SIGMA = 0.75
LONGEST = 1024
PADDING = 1.73
"""Forwarded tokens to real ones in random micro-batches of 4 Alpaca rows."""


def make(num: int, vocabulary: int, seed: int) -> list[list[int]]:
    """-> the rows of one step, in the order of the peers' micro-batches.

    Few rows scatter: they are drawn until length and padding are those of the whole data set.
    """
    drawn = random.Random(f"rows/{num}/{seed}")
    while True:
        lengths = [_length(drawn) for _ in range(num)]
        is_typical = abs(sum(lengths) / num - MEAN) < 0.03 * MEAN
        if is_typical and abs(padded(lengths) / sum(lengths) - PADDING) < 0.02:
            return [[drawn.randrange(vocabulary) for _ in range(length)] for length in lengths]


def _length(drawn: random.Random) -> int:
    scale = math.log(MEAN - OFFSET) - SIGMA**2 / 2
    return min(LONGEST, OFFSET + round(drawn.lognormvariate(scale, SIGMA)))


def padded(lengths: Sequence[int]) -> int:
    """-> tokens forwarded when micro-batches are padded to their longest row."""
    cuts = (lengths[begin : begin + MICRO_BATCH] for begin in range(0, len(lengths), MICRO_BATCH))
    return sum(len(cut) * max(cut) for cut in cuts)


def expected_padding(num_draws: int = 20_000, seed: int = 0) -> float:
    """-> padded over real tokens in the long run, before any choice of typical rows."""
    drawn = random.Random(seed)
    lengths = [_length(drawn) for _ in range(num_draws * MICRO_BATCH)]
    return padded(lengths) / sum(lengths)
