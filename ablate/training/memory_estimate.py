"""What a stage holds of a card's memory: by what its operations keep, from the shapes of its models, without torch.

Held within 15 % against an allocator that follows every storage (tests/unit/training/test_memory_estimate.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ablate.data.answer_groups import most_together
from ablate.store.memory import Held, Memory, Way
from ablate.store.sizes import ModelSizes
from ablate.study.field_types import BYTES
from ablate.study.quantize import BYTES_A_WEIGHT
from ablate.study.training_recipes import Distill, Lora, Train
from ablate.training.layer_shapes import (
    Layer,
    Linear,
    adapted,
    layers_of,
    num_adapter_weights,
    num_saved_weights,
)
from ablate.training.layers_on_cards import parts_of_layers, whole_layers
from ablate.training.loss_chunks import CHUNK_TOKENS, LOGIT_BYTES, chunk_tokens

CONTEXT = 600 << 20
"""CUDA itself, for one process."""
LONGEST = 2048
"""Tokens of the longest row where no max_length is said; tokens of what is asked about one question."""
CHECKPOINTING = "gradient checkpointing"
SMALLER_CHUNK = "logits of fewer tokens at once"
OFFLOAD = "the teacher's layers in the machine's memory"


@dataclass(frozen=True)
class Beside:
    """What stands beside the student in a training."""

    teachers: tuple[ModelSizes, ...] = ()
    """Models that read the rows."""
    heads: int = 0
    """Weights of heads alone, of teachers whose hidden states were kept."""
    outputs: int = 0
    """Numbers that are known of a teacher about a token."""
    projections: int = 0
    """Weights trained beside the student's."""
    writing: int = 0
    """Bytes held while answers are written, when no activation of a training is."""


NOTHING = Beside()


@dataclass(frozen=True)
class TrainingMemory:
    """What a training holds, with all tokens of a micro-batch loss-bearing."""

    recipe: Train
    student: ModelSizes
    dtype: str
    peak_tensors: int
    """Of a chunk's logits, in float32: so many of the loss live together."""
    beside: Beside = NOTHING

    def at(self, tokens: int, row: int, *, is_checkpointed: bool = False, is_least: bool = False) -> Memory:
        """`tokens`: of a micro-batch, in rows of at most `row`. `is_least`: with the smallest chunk of logits."""
        student, width, lora = self.student, BYTES[self.dtype], self.recipe.lora
        kept_by_layer = [_kept(layer, student, row, lora, self._adapted, width) for layer in layers_of(student)]
        kept, inside = sum(kept_by_layer), _on_the_way_back(student, width)
        if is_checkpointed or self.recipe.gradient_checkpointing:
            inside += max(kept_by_layer, default=0)
            kept = len(kept_by_layer) * student.hidden * width
        kept += student.hidden * (_wide(width) + width) + self.beside.outputs * width
        forward = max((_passing(model, width) for model in self.beside.teachers), default=0)
        passing = max(self._loss(tokens, width, is_least=is_least), tokens * inside, tokens * (forward - kept))
        passing += max(_widened(model, width) for model in (student, *self.beside.teachers))
        if lora is None:  # gradients as they come, activations gone
            passing = max(passing, student.num_params * width - tokens * kept)
        return Memory(
            context=CONTEXT,
            frozen=weight_bytes(student, width),
            teacher=self.teacher,
            trained=self._trained(width),
            kept=max(tokens * kept, self.beside.writing),
            passing=passing,
        )

    @property
    def _adapted(self) -> frozenset[str]:
        lora = self.recipe.lora
        return frozenset(module.name for module in adapted(self.student, lora)) if lora else frozenset()

    def _trained(self, width: int) -> int:
        """-> what is trained, its gradient and two moments, all in float32 or wider."""
        student, lora, wide = self.student, self.recipe.lora, _wide(width)
        beside = 4 * wide * self.beside.projections
        whole = 4 * wide - (0 if width < wide else width)  # of float32 the weight itself is among the frozen ones
        if lora is None:
            return student.num_params * whole + beside
        modules = adapted(student, lora)
        merged = sum(module.width_out * module.width_in for module in modules) if _is_merged(lora, width) else 0
        num_adapter = num_adapter_weights(modules, lora)
        narrow = num_adapter * width if width < wide else 0  # the factors that products are made of
        return wide * (4 * num_adapter + merged) + narrow + num_saved_weights(student, lora) * whole + beside

    def _loss(self, tokens: int, width: int, *, is_least: bool) -> int:
        vocabulary = max(model.vocab for model in (self.student, *self.beside.teachers))
        chunk = CHUNK_TOKENS["cuda"][0] if is_least else chunk_tokens(vocabulary, "cuda")
        trained_head = _wide(width) * self.student.num_head if self.recipe.lora is None else 0
        states = 2 * tokens * self.student.hidden * width
        return self.peak_tensors * min(tokens, chunk) * vocabulary * LOGIT_BYTES + trained_head + states

    def held(self, tokens: int) -> Held:
        """-> what it holds with one row of so many tokens at a time, and what gives way where that is too much."""
        plain = self.at(tokens, tokens)
        ways = [Way((), plain)]
        changes: tuple[str, ...] = ()
        if not self.recipe.gradient_checkpointing:
            changes = (CHECKPOINTING,)
            ways.append(Way(changes, self.at(tokens, tokens, is_checkpointed=True)))
        changes = (*changes, SMALLER_CHUNK)
        least = self.at(tokens, tokens, is_checkpointed=True, is_least=True)
        ways.append(Way(changes, least))
        if self.beside.teachers:
            ways.append(Way((*changes, OFFLOAD), least._replace(teacher=self.teacher_offloaded()), is_offloaded=True))
        layers = parts_of_layers(self.student, self.beside.teachers, self.recipe.lora, BYTES[self.dtype])
        least_weights = min(way.memory.weights for way in ways)
        return Held(plain.total, least_weights, tuple(ways), layers, is_training=True)

    @property
    def teacher(self) -> int:
        """Bytes of weights that are loaded beside the student."""
        width = BYTES[self.dtype]
        return sum(weight_bytes(model, width) for model in self.beside.teachers) + self.beside.heads * width

    def teacher_offloaded(self) -> int:
        """-> of these, what is on the card while the layers of teachers wait elsewhere: two of each at most."""
        width = BYTES[self.dtype]
        return self.teacher - sum(_waiting(model, width) for model in self.beside.teachers)


def _waiting(model: ModelSizes, width: int) -> int:
    """-> bytes of the layers that are not on the card, at the moment when most are."""
    layers = whole_layers(model, width)
    return max(0, sum(layers) - 2 * max(layers, default=0))


@dataclass(frozen=True)
class ForwardMemory:
    """What a model holds that is only asked."""

    model: ModelSizes
    dtype: str
    peak_tensors: int = 2
    """Of a chunk's logits."""
    others: int = 0
    """Weights loaded beside it."""

    def at(self, tokens: int, row: int, keys_and_values: int = 0) -> Memory:
        """`tokens`: forwarded together, in rows of at most `row`. `keys_and_values`: bytes of those kept."""
        model, width = self.model, BYTES[self.dtype]
        scores = model.heads * row * (width + 4) if model.is_eager else 0
        chunk = min(tokens, chunk_tokens(model.vocab, "cuda")) * model.vocab * LOGIT_BYTES
        states = tokens * model.hidden * width
        passing = max(tokens * (_passing(model, width) + scores), 2 * states + self.peak_tensors * chunk)
        passing += _widened(model, width)
        return Memory(CONTEXT, weight_bytes(model, width), self.others * width, 0, keys_and_values, passing)

    def held(self, tokens: int, keys_and_values: int = 0) -> Held:
        """-> what it holds with one row of so many tokens at a time."""
        memory = self.at(tokens, tokens, keys_and_values)
        return Held(memory.total, memory.weights, (Way((), memory),), whole_layers(self.model, BYTES[self.dtype]))


def peak_tensors(recipe: Train) -> int:
    """-> of a chunk's logits, in float32, how many the loss holds at once."""
    if not isinstance(recipe, Distill):
        return CLASS_LOSS
    losses = [recipe.loss, *([recipe.student_loss] if recipe.student_loss else [])]
    return max(GRADED_LOSS if loss.is_graded else DIFFERENTIATED_LOSS for loss in losses)


GRADED_LOSS = 3
"""The logits of both models, and their halves in 16 bits; all else is of a few tokens at a time."""
DIFFERENTIATED_LOSS = 14
"""At most, of a loss without a formula for its gradient."""
CLASS_LOSS = 2
"""The logits, their exponentials and the two halves of these in 16 bits."""


VECTOR_TENSORS = 4
"""While vectors are made: probabilities, their halves in 16 bits, and the products of these."""
TOP_K_TENSORS = 3


def weight_bytes(model: ModelSizes, width: int) -> int:
    """-> of a model's weights as a stage keeps them: in few bits those of the linear modules of its layers."""
    if model.quantize is None:
        return model.num_params * width
    num = sum(_matrices(model))
    return int(num * BYTES_A_WEIGHT[model.quantize]) + (model.num_params - num) * width


def _widened(model: ModelSizes, width: int) -> int:
    """-> bytes of the largest matrix of few bits while it is multiplied, and summed in float32 with what is on top."""
    return max(_matrices(model), default=0) * (width + 8) if model.quantize else 0


def _matrices(model: ModelSizes) -> list[int]:
    modules = (module for layer in layers_of(model) for module in _linear(layer))
    return [module.width_out * module.width_in for module in modules]


def _linear(layer: Layer) -> Iterator[Linear]:
    yield from (module for group in layer.by_input.values() for module in group)


def keys_and_values_of(model: ModelSizes, tokens: int, dtype: str) -> int:
    """-> bytes of all layers."""
    return 2 * max(1, model.layers) * model.kv_width * tokens * BYTES[dtype]


def keys_and_values(model: ModelSizes, tokens: int, dtype: str) -> int:
    """-> bytes, of answers that are written together, each `tokens` long with its prompt."""
    of_one = keys_and_values_of(model, tokens, dtype)
    return most_together(of_one) * of_one


def _wide(width: int) -> int:
    """-> bytes of a number in float32 or wider."""
    return max(4, width)


def _is_merged(lora: Lora, width: int) -> bool:
    """Whether W + s B A is kept as one matrix; small ones of 16 bits, which are too, are left out."""
    return width >= 4 and not lora.dropout


def _kept(layer: Layer, model: ModelSizes, row: int, lora: Lora | None, names: frozenset[str], width: int) -> int:
    """-> bytes that a layer keeps of a token for the way back."""
    wide = _wide(width)
    norm = width if layer.has_layer_norm else wide
    total = sum(layer.norms) * (norm + (width if lora is None else 0))
    for (is_attention, is_output), modules in layer.by_input.items():
        num = len(modules) if lora is None else sum(module.name in names for module in modules)
        is_shared = is_attention and is_output  # with what the attention keeps of its output
        if num and not is_shared:
            total += modules[0].width_in * width
        if lora and not _is_merged(lora, width):
            total += num * lora.rank * width
        if lora and lora.use_dora:
            total += sum(module.width_out for module in modules if module.name in names) * wide
    return total + _kept_by_attention(layer, model, row, width) + _kept_by_mlp(layer, model, width)


def _kept_by_attention(layer: Layer, model: ModelSizes, row: int, width: int) -> int:
    """-> queries, keys, values, output and the log-sum-exp.

    Without a fused kernel all scores: capped, as probabilities in float32, and these in the model's dtype.
    """
    queries = layer.width_in(is_attention=True) or model.query_width
    if model.is_eager:
        return width * 4 * queries + model.heads * row * (4 + width * (2 if width < 4 else 1))
    return width * (2 * queries + 2 * model.kv_width) + 4 * model.heads


def _kept_by_mlp(layer: Layer, model: ModelSizes, width: int) -> int:
    """-> what the activation reads, and of a gated one both factors."""
    num = 3 if layer.is_gated else _UNFUSED.get(model.activation, 1)
    return layer.width_in(is_attention=False) * width * num


_UNFUSED = {"gelu_new": 4, "gelu_fast": 4}
"""Activations that transformers writes out, and how many tensors of theirs are kept."""


def _on_the_way_back(model: ModelSizes, width: int) -> int:
    """-> bytes a token, at most, of gradients inside of a layer: of a norm in float32, or of the MLP."""
    inner = max((layer.width_in(is_attention=False) for layer in layers_of(model)), default=model.inner)
    return max(model.hidden * (5 * _wide(width) + width), width * (2 * inner + model.hidden))


def _passing(model: ModelSizes, width: int) -> int:
    """-> bytes a token, at most, inside of a layer without a way back."""
    inner = max((layer.width_in(is_attention=False) for layer in layers_of(model)), default=model.inner)
    return max(model.hidden * (3 * _wide(width) + width), 2 * model.hidden * width + 3 * inner * width)
