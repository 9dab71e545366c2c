"""What a model holds of a card that is only asked: to score texts, to say what it knows of tokens, or to write."""

from dataclasses import dataclass
from typing import NamedTuple

from ablate.data.answer_groups import most_together
from ablate.store.memory import Held, Memory, Way
from ablate.store.sizes import ModelSizes
from ablate.study.answer_settings import Sampling
from ablate.study.field_types import BYTES, Dtype
from ablate.study.quantize import BYTES_A_WEIGHT
from ablate.training.layer_memory import passing_forward
from ablate.training.layer_shapes import Layer, layers_of
from ablate.training.loss_chunks import asked_bytes

CONTEXT = 600 << 20
"""CUDA itself, for one process."""
MIN_GROWTH = 64
"""Tokens that keys and values get more room for at once, at least; else a quarter of those that are there."""
LONGEST = 2048
"""Tokens of the longest row where no max_length is said; tokens of what is asked about one question."""
SCORED = 256
"""Of these, tokens of the answers, which alone are scored."""
FEWER_TEXTS = "fewer answers written together"


def of_text(sampling: Sampling) -> str:
    """-> which of ASKED_PEAKS it is to write by such a sampling."""
    return "text" if sampling.top_p == 1 else "text, top_p"


class Trees(NamedTuple):
    """Of a task's questions, each a tree of tokens that its answers share (`evaluation.trees`)."""

    width: int
    """Tokens of the widest one."""
    prefix: int
    """Tokens that stand before all of them."""
    scored: float
    """Share of the tokens at which one is scored."""
    is_branching: bool = True


@dataclass(frozen=True)
class ForwardMemory:
    """What a model holds that is only asked."""

    model: ModelSizes
    dtype: Dtype
    asked: str = "scores"
    """What is made of its logits: see `loss_chunks.ASKED_PEAKS`."""
    others: int = 0
    """Weights loaded beside it."""
    output_bytes: int = 0
    """Of what is made of a token, until a whole micro-batch is forwarded."""

    def at(self, tokens: int, row: int, keys_and_values: int = 0, num_asked: int | None = None) -> Memory:
        """`tokens`: forwarded together, in rows of at most `row`. `keys_and_values`: bytes of those kept.

        `num_asked`: tokens that something is said of; None: of all.
        """
        model, width = self.model, BYTES[self.dtype]
        num = tokens if num_asked is None else num_asked
        saying = num * (model.hidden * width + self.output_bytes) + asked_bytes(self.asked, num, model.vocab, width)
        passing = max(tokens * passing_forward(model, width, row), saying) + widened(model, width)
        return Memory(CONTEXT, weight_bytes(model, width), self.others * width, 0, keys_and_values, passing)

    def of_trees(self, tokens: int, trees: Trees) -> Memory:
        """-> with so many tokens of trees side by side, under the keys and values of what stands before them."""
        model, width, num = self.model, BYTES[self.dtype], tokens // trees.width
        seen, scored = trees.prefix + trees.width, int(tokens * trees.scored)
        before = keys_and_values_of(model, trees.prefix, self.dtype)
        kept = keys_and_values_of(model, num * seen if trees.prefix else 0, self.dtype)
        forward, scoring = self.at(tokens, seen, before + kept, 0), self.at(scored, seen, before)
        if trees.is_branching or trees.prefix:  # under a mask
            mask = tokens * seen * width
            heads = 2 * num * seen * model.query_width  # keys and values, repeated for all heads
            attention = width * (tokens * (5 * model.hidden + 2 * model.query_width) + heads) + mask  # padded once more
            forward = forward._replace(passing=mask + max(forward.passing, attention))
        return max(forward, scoring, key=lambda memory: memory.total)

    def held(self, tokens: int, keys_and_values: int = 0, num_asked: int | None = None) -> Held:
        """-> what it holds with one row of so many tokens at a time."""
        return _held(self, Way((), self.at(tokens, tokens, keys_and_values, num_asked)))

    def held_writing(self, prompt: int, new: int) -> Held:
        """-> what it holds while it writes answers of `new` tokens to prompts, in groups as large as are written."""
        together = most_together(keys_and_values_of(self.model, prompt + new, self.dtype))
        ways = (Way((), self.writing(together, prompt, new)), Way((FEWER_TEXTS,), self.writing(1, prompt, new)))
        return _held(self, *(ways if together > 1 else ways[:1]))

    def writing(self, num: int, prompt: int, new: int) -> Memory:
        """-> with so many answers written together: while the prompts are read, or at the last token."""
        reading = self._at_text(num * prompt, num, room_of(prompt))
        last = self._at_text(num, num, _room_after(prompt, new))
        return max(reading, last, key=lambda memory: memory.total)

    def _at_text(self, tokens: int, num: int, room: int) -> Memory:
        """`tokens`: read together of so many texts, in `room` for that many tokens' keys and values each."""
        return self.at(tokens, tokens // num, keys_and_values_of(self.model, num * room, self.dtype), num)


def _held(asked: ForwardMemory, *ways: Way) -> Held:
    memory, layers = ways[0].memory, whole_layers(asked.model, BYTES[asked.dtype])
    return Held(memory.total, memory.weights, ways, layers)


def room_of(tokens: int) -> int:
    """-> tokens that keys and values get room for when so many are read (`key_values.GrowingLayer`)."""
    return tokens + max(MIN_GROWTH, tokens // 4)


def _room_after(prompt: int, new: int) -> int:
    room = room_of(prompt)
    while room < prompt + new:
        room = room_of(room + 1)
    return room


def weight_bytes(model: ModelSizes, width: int) -> int:
    """-> of a model's weights as a stage keeps them: in few bits those of the linear modules of its layers."""
    if model.quantize is None:
        return model.num_params * width
    num = sum(_matrices(model))
    return int(num * BYTES_A_WEIGHT[model.quantize]) + (model.num_params - num) * width


def whole_layers(model: ModelSizes, width: int) -> tuple[int, ...]:
    """-> of each layer, likewise."""
    return tuple(_layer_bytes(layer, model, width) for layer in layers_of(model))


def _layer_bytes(layer: Layer, model: ModelSizes, width: int) -> int:
    if model.quantize is None:
        return layer.num_weights * width
    num = sum(_matrices_in(layer))
    return int(num * BYTES_A_WEIGHT[model.quantize]) + (layer.num_weights - num) * width


def widened(model: ModelSizes, width: int) -> int:
    """-> bytes of the largest matrix of few bits while it is multiplied, and summed in float32 with what is on top."""
    return max(_matrices(model), default=0) * (width + 8) if model.quantize else 0


def _matrices(model: ModelSizes) -> list[int]:
    return [num for layer in layers_of(model) for num in _matrices_in(layer)]


def _matrices_in(layer: Layer) -> list[int]:
    modules = (module for group in layer.by_input.values() for module in group)
    return [module.width_out * module.width_in for module in modules]


def keys_and_values_of(model: ModelSizes, tokens: int, dtype: Dtype) -> int:
    """-> bytes of all layers."""
    return 2 * max(1, model.layers) * model.kv_width * tokens * BYTES[dtype]
