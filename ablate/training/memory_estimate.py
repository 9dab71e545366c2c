"""What a stage holds of a card's memory at least: with the smallest micro-batch, from the sizes of its models."""

from ablate.data.answer_groups import most_together
from ablate.store.kind import Held
from ablate.store.sizes import ModelSizes
from ablate.study.field_types import BYTES
from ablate.study.training_recipes import Train

CONTEXT = 600 << 20
"""CUDA itself, for one process."""
LONGEST = 2048
"""Tokens of the longest row where no max_length is said; tokens of what is asked about one question."""
PER_TRAINED_WEIGHT = 16
"""float32 weight, gradient and two AdamW moments."""
LOGIT_TENSORS, LOGIT_TOKENS = 5, 512
"""Float32 tensors of a chunk's logits that live together, and tokens of a chunk on a card."""


def training(
    recipe: Train, student: ModelSizes, num_loaded: int, num_trained: int, tokens: int, dtype: str, writing: int = 0
) -> Held:
    """`num_loaded`: weights of the teacher beside, `tokens`: of the longest row.

    `writing`: bytes held while answers are written, when no activation of a training is.
    """
    width = BYTES[dtype]
    loaded, trained = (student.num_params + num_loaded) * width, num_trained * PER_TRAINED_WEIGHT
    layer = tokens * _layer_width(student, width)
    if recipe.lora and recipe.lora.use_dora:  # of each adapted module's output too
        layer += tokens * 4 * (4 * student.hidden + 2 * student.inner)
    kept = 2 * tokens * student.hidden * width if recipe.gradient_checkpointing else layer
    layers = max(1, student.layers) * kept + (layer if recipe.gradient_checkpointing else 0)
    certain = loaded + (trained if recipe.lora is None else 0)  # how many weights an adapter has is a guess
    return Held(CONTEXT + loaded + trained + max(layers, writing) + _logits(student, tokens), certain)


def keys_and_values(model: ModelSizes, tokens: int, dtype: str) -> int:
    """-> bytes, of answers that are written together, each `tokens` long with its prompt."""
    of_one = tokens * 2 * max(1, model.layers) * model.kv_width * BYTES[dtype]
    return most_together(of_one) * of_one


def _layer_width(model: ModelSizes, width: int) -> int:
    """Bytes that a layer keeps of a token for the way back: what its products read, and float32 beside for adapters."""
    return width * (12 * model.hidden + 4 * model.inner) + 4 * (4 * model.hidden + 2 * model.inner)


def forward(model: ModelSizes, num_weights: int, tokens: int, dtype: str) -> Held:
    """Of passes without a way back, with the keys and values of all layers; `num_weights`: all that is loaded."""
    width = BYTES[dtype]
    keys_and_values = 2 * max(1, model.layers) * model.kv_width * tokens * width
    transient = tokens * (8 * model.hidden + 3 * model.inner) * width
    beside = keys_and_values + transient + _logits(model, tokens)
    return Held(CONTEXT + num_weights * width + beside, model.num_params * width)


def _logits(model: ModelSizes, tokens: int) -> int:
    return LOGIT_TENSORS * min(tokens, LOGIT_TOKENS) * model.vocab * 4 + 3 * tokens * model.hidden * 4
