"""Seeds of random numbers: each follows from a text that says what it is for, so no generator's state is kept."""

import hashlib


def seed_of(text: str) -> int:
    """-> 63 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
