"""Whether a stage fits on so many cards of so much memory, and how: whole, with what gives way, or in shards."""

import math
from typing import NamedTuple

from ablate.store.memory import Held, Memory, Way

SHARE = 0.95
"""Of a card's memory: an allocator leaves gaps."""


class Verdict(NamedTuple):
    """How a stage fits, or that it does not."""

    num_cards: int
    """That hold one copy of its models; 0: it does not fit."""
    card_bytes: int
    """What the fullest of them holds; where it does not fit, what it would hold at best."""
    how: str

    @property
    def is_fit(self) -> bool:
        return self.num_cards > 0


def verdict(held: Held, num_cards: int, card_bytes: int) -> Verdict:
    """-> the way with the fewest cards, and of these the cheapest; the machine's memory comes last."""
    room = int(SHARE * card_bytes)
    ways = list(_all_ways(held, num_cards))
    fits = next((each for each in ways if each.card_bytes <= room), None)
    if fits:
        return fits
    best = min(ways, key=lambda each: each.card_bytes)
    need = f"{best.card_bytes / 1e9:.0f} GB a card are needed at least"
    return Verdict(0, best.card_bytes, f"{need}, {best.how}" if best.how else need)


def _all_ways(held: Held, num_cards: int) -> "list[Verdict]":
    """-> first on one card, then in shards over more and more, then on one with layers in the machine's memory."""
    on_card = [way for way in held.ways if not way.is_offloaded]
    one = [Verdict(1, way.memory.total, _words(way)) for way in on_card]
    nums = [2**power for power in range(1, num_cards.bit_length()) if 2**power <= num_cards]
    shards = [_sharded(held, way, num) for num in nums for way in on_card]
    waiting = [Verdict(1, way.memory.total, _words(way)) for way in held.ways if way.is_offloaded]
    return [*one, *shards, *waiting]


def _sharded(held: Held, way: Way, num_cards: int) -> Verdict:
    """A training by FSDP2: what it holds of weights in k shards, and two layers gathered, one ahead of the other.

    What is only asked has its layers on one card after the other, a layer more on one where they do not come out even.
    """
    what = "its layers on {} cards" if not held.is_training else "its weights in shards on {} cards (FSDP2)"
    words = ", ".join(filter(None, [what.format(num_cards), _words(way)]))
    return Verdict(num_cards, sharded_bytes(way.memory, held, num_cards), words)


def sharded_bytes(memory: Memory, held: Held, num_cards: int) -> int:
    """-> of the fullest card."""
    gathered = held.layer * (2 if held.is_training else 1)
    return memory.context + math.ceil(memory.weights / num_cards) + gathered + memory.beside_weights


def _words(way: Way) -> str:
    return f"with {', '.join(way.changes)}" if way.changes else ""
