"""What a stage holds of a card's memory, of what, and what gives way where that is too much."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes by what they are for."""

    context: int = 0
    """CUDA itself, for one process."""
    frozen: int = 0
    """The model's weights that stay as they are."""
    teacher: int = 0
    """Weights of the models beside it."""
    trained: int = 0
    """Weights that are trained, with gradients and moments."""
    kept: int = 0
    """Activations: for the way back, or keys and values."""
    passing: int = 0
    """The most that is there for a moment beside all this: inside of a layer, or of the loss."""

    @property
    def total(self) -> int:
        return sum(self)

    @property
    def needed(self) -> int:
        """Of what a process may fill, to which CUDA itself does not count."""
        return self.total - self.context

    @property
    def beside_weights(self) -> int:
        return self.kept + self.passing

    @property
    def weights(self) -> int:
        """What is there however short the rows."""
        return self.frozen + self.teacher + self.trained


class Way(NamedTuple):
    """A way to run a stage."""

    changes: tuple[str, ...]
    """What gave way, in words; none: nothing."""
    memory: Memory
    is_offloaded: bool = False
    """Layers wait in the machine's memory."""


class Held(NamedTuple):
    """Of a card's memory, in bytes."""

    estimate: int
    """As the study says, with one of the longest rows at a time."""
    weights: int
    """What is there however small the micro-batch and whatever gives way: no stage does with less."""
    ways: tuple[Way, ...] = ()
    """As the study says first; each further one takes less memory and more time."""
    layers: tuple[int, ...] = ()
    """Bytes of each layer that several cards can share: of a training its frozen weights, of all models; else the whole
    layer. Empty: they cannot."""
    is_training: bool = False


def cards_of_layers(rest: int, layers: Sequence[int], num_cards: int) -> list[int]:
    """-> for each layer the number of its card: in their order, each card as full as the others, the rest on card 0."""
    total = rest + sum(layers)
    middles = (rest + end - size / 2 for end, size in zip(accumulate(layers), layers, strict=True))
    return [min(num_cards - 1, int(middle * num_cards / total)) for middle in middles]


def fitting(ways: Sequence[Way], free: int) -> Way | None:
    """-> the first way that does with so much memory; None where none does."""
    return next((way for way in ways if way.memory.total <= free), None)
