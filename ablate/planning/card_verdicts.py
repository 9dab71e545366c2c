"""Whether a stage fits on so many cards of so much memory, and how: whole, with what gives way, or in shards."""

import math
from typing import NamedTuple

from ablate.store.memory import Held, Memory, Way, cards_of_layers

SHARE = 0.95
"""Of a card's memory: an allocator leaves gaps."""


class Verdict(NamedTuple):
    """How a stage fits, or that it does not."""

    num_cards: int
    """That hold one copy of its models; 0: it does not fit."""
    card_bytes: int
    """What the fullest of them holds; where it does not fit, what it would hold at best."""
    how: str
    host_bytes: int = 0
    """What waits in the machine's memory."""

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
    need = f"{best.card_bytes / 1e9:.1f} GB a card are needed at least"
    return Verdict(0, best.card_bytes, f"{need}, {best.how}" if best.how else need)


def _all_ways(held: Held, num_cards: int) -> "list[Verdict]":
    """-> first on one card, then shared by more and more, then on one with layers in the machine's memory."""
    on_card = [way for way in held.ways if not way.is_offloaded]
    one = [Verdict(1, way.memory.total, _words(way)) for way in on_card]
    nums = numbers_of_cards(num_cards) if held.layers else []
    shared = [_shared(held, way, num) for num in nums for way in on_card]
    return [*one, *shared, *_waiting(held)]


def _waiting(held: Held) -> list[Verdict]:
    teacher = held.ways[0].memory.teacher
    ways = (way for way in held.ways if way.is_offloaded)
    return [Verdict(1, way.memory.total, _words(way), teacher - way.memory.teacher) for way in ways]


def numbers_of_cards(num_cards: int) -> list[int]:
    """-> how many of so many cards a model may be shared by: the powers of two among them, and all."""
    powers = [2**power for power in range(1, num_cards.bit_length())]
    return [*powers, *([num_cards] if num_cards > 2 and num_cards not in powers else [])]


def _shared(held: Held, way: Way, num_cards: int) -> Verdict:
    what = "its weights in shards on {} cards (FSDP2)" if held.is_training else "its layers on {} cards"
    words = ", ".join(filter(None, [what.format(num_cards), _words(way)]))
    size = sharded_bytes if held.is_training else placed_bytes
    return Verdict(num_cards, size(way.memory, held, num_cards), words)


def sharded_bytes(memory: Memory, held: Held, num_cards: int) -> int:
    """-> of a card of a training by FSDP2, where only layers' frozen weights are in shards.

    Layers are gathered while they are used: on the way there a third beside two for a moment, on the way back two.
    """
    whole = memory.weights - sum(held.layers)
    part = sum(math.ceil(layer / num_cards) for layer in held.layers)
    layer = max(held.layers)
    return memory.context + whole + part + memory.kept + max(3 * layer, 2 * layer + memory.passing)


def placed_bytes(memory: Memory, held: Held, num_cards: int) -> int:
    """-> of the fullest card of a model whose layers lie on several, their keys and values with them."""
    rest = memory.frozen - sum(held.layers)
    numbers = cards_of_layers(rest, held.layers, num_cards)
    loads = [rest + memory.teacher, *(0 for _ in range(num_cards - 1))]
    for layer, number in zip(held.layers, numbers, strict=True):
        loads[number] += layer + memory.kept // len(held.layers)
    return memory.context + max(loads) + memory.passing


def _words(way: Way) -> str:
    return f"with {', '.join(way.changes)}" if way.changes else ""
