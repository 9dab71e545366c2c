"""Cards that `plan` is asked about and that need not be here: how many, of how much memory each."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ablate.core.errors import AblateError

MOST_CARDS = 64
"""Of one machine."""
MOST_BYTES = 10**12
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(gib|gb|g)?")
POSSIBLE = (
    "plan takes how many cards of how much memory each, such as 4x80GB; several as 1x24GB,8x141GB, or all of"
    " 1,2,4,8x24,40,80,141GB"
)


class CardSet(NamedTuple):
    """So many cards of one machine."""

    num: int
    card_bytes: int
    """Memory of each."""

    def __str__(self) -> str:
        return f"{self.num} x {size_words(self.card_bytes)}"


def size_words(card_bytes: int) -> str:
    """-> 80 GB, 85.9 GB."""
    return f"{round(card_bytes / 1e9, 1):g} GB"


def asked_cards(texts: Iterable[str]) -> tuple[CardSet, ...]:
    """What was given with --cards, once or many times -> the sets of cards, each once. Raises AblateError."""
    return tuple(dict.fromkeys(cards for text in texts for cards in _sets(text)))


def _sets(text: str) -> list[CardSet]:
    plain = re.sub(r"\s", "", text).lower().replace("\N{MULTIPLICATION SIGN}", "x")
    parts = plain.split(",")
    if plain.count("x") == 1:
        nums, _, sizes = plain.partition("x")
        return _product(text, nums.split(","), sizes.split(","))
    if all(part.count("x") == 1 for part in parts):
        return [cards for part in parts for cards in _product(text, *([side] for side in part.split("x")))]
    raise AblateError(f"--cards {text}: it does not say how many and how large{_one(plain)}; {POSSIBLE}")


def _one(plain: str) -> str:
    """-> what is meant by a size alone."""
    return f" (one such card is 1x{plain.upper()})" if _SIZE.fullmatch(plain) else ""


def _product(text: str, nums: Sequence[str], sizes: Sequence[str]) -> list[CardSet]:
    """-> every number with every size, the smallest size first if it was given first."""
    return [CardSet(_number(text, num), _bytes(text, size)) for size in sizes for num in nums]


def _number(text: str, word: str) -> int:
    if not word.isascii() or not word.isdigit() or not 0 < int(word) <= MOST_CARDS:
        raise AblateError(f"--cards {text}: {word!r} is no number of cards from 1 to {MOST_CARDS}; {POSSIBLE}")
    return int(word)


def _bytes(text: str, word: str) -> int:
    size = _SIZE.fullmatch(word)
    num_bytes = int(float(size[1]) * (2**30 if size[2] == "gib" else 10**9)) if size else 0
    if not 10**9 <= num_bytes <= MOST_BYTES:
        what = f"{word!r} is not the memory of a card, from 1GB to {MOST_BYTES // 10**9}GB"
        raise AblateError(f"--cards {text}: {what}; {POSSIBLE}")
    return num_bytes
