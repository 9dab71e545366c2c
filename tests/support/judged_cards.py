"""What stages of real shapes hold of one card or a share of several, from transformers' own modules, without estimates.

Weights are those of the module on the meta device, shared out by hand; what comes and goes is what an allocator that
follows every storage saw of the same model with two and with four layers, of which each further layer takes as much.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from ablate.study.training_recipes import Distill, Train
from ablate.training.layer_placement import places
from support import judged_memory as judged

CONTEXT = 600 << 20
"""CUDA itself."""
ROW = 1024
SHAPES = {"70B": judged.LLAMA_70B, "8B": judged.LLAMA_8B}
FEW = (2, 4)
"""Layers."""


class Room(NamedTuple):
    """What one way to run a stage takes."""

    num_cards: int
    card_bytes: int
    """Of the fullest."""
    is_offloaded: bool = False


def model(name: str, num_layers: int | None = None) -> Any:
    return judged.meta_model(SHAPES[name] | ({"num_hidden_layers": num_layers} if num_layers else {}))


def nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def layers(whole: Any) -> Sequence[Any]:
    return whole.model.layers


def shard(whole: Any, num_cards: int) -> int:
    """-> bytes of one rank: its rows of each weight of a layer, all of the embedding, the head and the last norm."""
    in_layers = [weight for layer in layers(whole) for weight in layer.parameters()]
    rows = sum(math.ceil(weight.shape[0] / num_cards) * (weight[0].numel() or 1) * 2 for weight in in_layers)
    return rows + nbytes(whole.parameters()) - nbytes(in_layers)


def waiting(whole: Any) -> int:
    """-> bytes of the layers that are on the host while two are on the card."""
    return nbytes(weight for layer in list(layers(whole))[2:] for weight in layer.parameters())


def training_rooms(recipe: Train, student: str, teacher: str | None, num_cards: Sequence[int]) -> list[Room]:
    """-> every way to run a training, as they are tried."""
    models = [model(name) for name in (student, teacher) if name]
    largest = max(nbytes(layers(one)[0].parameters()) for one in models)
    ways = [(False, False), (True, False), (True, True)]
    plain, checkpointed, least = (CONTEXT + _with_adapters(recipe, student, teacher, *way) for way in ways)
    beside = [plain, max(checkpointed, least), least]  # few layers leave less than the loss takes, many more
    one = [Room(1, sum(nbytes(whole.parameters()) for whole in models) + rest) for rest in beside]
    several = [
        Room(num, sum(shard(whole, num) for whole in models) + 2 * largest + rest)
        for num in num_cards
        for rest in beside
    ]
    host = [Room(1, one[-1].card_bytes - waiting(models[1]), True)] if teacher else []
    return [*one, *several, *host]


def _with_adapters(recipe: Train, student: str, teacher: str | None, is_checkpointed: bool, is_least: bool) -> int:
    """-> peak of two steps over the models' own weights, of as many layers as there are."""
    few = [_peak(recipe, student, teacher, is_checkpointed, is_least, num) for num in FEW]
    num_layers = SHAPES[student]["num_hidden_layers"]
    return few[0] + (few[1] - few[0]) // (FEW[1] - FEW[0]) * (num_layers - FEW[0])


def _peak(
    recipe: Train, student: str, teacher: str | None, is_checkpointed: bool, is_least: bool, num_layers: int
) -> int:
    recipe = recipe.model_copy(update={"gradient_checkpointing": is_checkpointed})
    models = [model(student, num_layers), *([model(teacher, FEW[0])] if teacher else [])]
    loaded = nbytes(weight for one in models for weight in one.parameters())
    training = judged.meta_training(recipe, *map(judged.parts, models), rows=(ROW,))
    training.scratch.logit_bytes = 1 if is_least else None
    return judged.two_steps(training).peak - loaded


def asked_rooms(name: str, num_cards: Sequence[int], keys_and_values: int = 0, logits: int = 0) -> list[Room]:
    """-> every way to ask a model: on one card, its layers on several with their keys and values.

    `logits`: bytes of those that are there at once, after the layers.
    """
    whole, few = model(name), model(name, FEW[0])
    tensors = [*few.parameters(), *few.buffers()]
    with torch.no_grad(), judged.judging(tensors) as held:
        few.base_model(input_ids=torch.zeros(1, ROW, dtype=torch.long, device="meta"), use_cache=False)
    beside = CONTEXT + max(held.peak - held.given, logits)
    return [
        Room(num, beside + max(loads(whole, num, keys_and_values // len(layers(whole))).values()))
        for num in (1, *num_cards)
    ]


def loads(whole: Any, num: int, of_layer: int) -> dict[str, int]:
    """-> by card, as the model's modules are really put on them."""
    by_card: dict[str, int] = {}
    for module, device in places(whole, [str(number) for number in range(num)]).items():
        is_layer = module.rpartition(".")[2].isdecimal()
        weights = whole.get_submodule(module).parameters(recurse=is_layer)
        by_card[device] = by_card.get(device, 0) + nbytes(weights) + (of_layer if is_layer else 0)
    return by_card


def first_fit(rooms: Iterable[Room], card_bytes: int) -> Room | None:
    """-> the first way that fits on cards of which 5 % stay free."""
    return next((room for room in rooms if room.card_bytes <= 0.95 * card_bytes), None)


TEACHER, STUDENT = "70B", "8B"
KEYS_AND_VALUES = {name: 2 * shape["num_hidden_layers"] * 8 * 128 * ROW * 2 for name, shape in SHAPES.items()}
"""Bytes, of a row: 8 heads of 128."""
LOGITS = 2 * 512 * 128_256 * 4
"""Bytes of 512 tokens' logits in float32, and of what is made of them."""


def rooms_of(stage: str, num_cards: Sequence[int]) -> list[Room]:
    """-> every way to run one of the stages of a study of a 70B teacher and an 8B student."""
    return {
        "the teacher is fine-tuned": lambda: training_rooms(Train(), TEACHER, None, num_cards),
        "the student is fine-tuned": lambda: training_rooms(Train(), STUDENT, None, num_cards),
        "the student beside the teacher": lambda: training_rooms(Distill(), STUDENT, TEACHER, num_cards),
        "the teacher is asked": lambda: asked_rooms(TEACHER, num_cards),
        "the teacher is evaluated": lambda: asked_rooms(TEACHER, num_cards, KEYS_AND_VALUES[TEACHER], LOGITS),
        "the student is evaluated": lambda: asked_rooms(STUDENT, num_cards, KEYS_AND_VALUES[STUDENT], LOGITS),
    }[stage]()
