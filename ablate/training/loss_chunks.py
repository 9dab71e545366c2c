"""How many tokens' logits a loss holds at once, as the loss itself and an estimate of memory count them: no torch."""

LOGIT_BYTES = 4
"""Of one logit: float32."""
CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Of one tensor of a chunk's logits, where nobody says how much memory there is."""
CHUNK_TOKENS = {"cpu": (64, 256), "cuda": (256, 8192)}
"""At least, so that the head's weights are not read for a few tokens only, and at most.

On a card a chunk reads a head of width D three times in 16 bits, 6 D / C bytes a logit beside some 47 that the loss
itself moves: with D = 2,048 at 256 tokens as much again, at 1,024 a quarter, beyond 4,096 next to nothing.
"""

BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 32 << 20}
"""Of one tensor of the rows of a chunk that a loss works on at a time.

What it makes beside the logits is of this size, whatever the chunk's. On a CPU all of it stays in the cache: 4 times as
fast at V = 128,256 as the whole chunk at once; on a card a pass still takes longer than its launch.
"""


def chunk_tokens(vocabulary: int, device: str = "cpu", logit_bytes: int | None = None) -> int:
    """-> tokens of which all logits are held at once.

    `device`: its type. `logit_bytes`: what one tensor of their logits may take; at the least number of tokens it takes
    more than that.
    """
    on = "cpu" if device == "cpu" else "cuda"
    least, most = CHUNK_TOKENS[on]
    return min(most, max(least, (logit_bytes or CHUNK_BYTES[on]) // (LOGIT_BYTES * vocabulary)))


def block_rows(vocabulary: int, device: str = "cpu", bytes_each: int = LOGIT_BYTES) -> int:
    """-> rows of a chunk's logits that a loss works on at a time."""
    return max(1, BLOCK_BYTES["cpu" if device == "cpu" else "cuda"] // (bytes_each * vocabulary))
