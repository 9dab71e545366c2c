"""How many answers are written together: arithmetic, free of torch so that a plan can use it."""

from typing import Final

GROUP_SIZE: Final = 64
GROUP_BYTES: Final = 4 << 30
"""Of keys and values. Another number would round otherwise: raise the version of `generate`."""


def most_together(bytes_a_text: int) -> int:
    """-> how many answers; `bytes_a_text`: of the keys and values of the longest."""
    return max(1, min(GROUP_SIZE, GROUP_BYTES // max(1, bytes_a_text)))
