"""What a stage holds of a card's memory: by what its operations keep, from the shapes of its models, without torch.

Held within 15 % against an allocator that follows every storage (tests/unit/training/test_memory_estimate.py).
"""

from dataclasses import dataclass

from ablate.losses import Loss
from ablate.store.memory import Held, Memory, Way
from ablate.store.sizes import ModelSizes
from ablate.study.field_types import BYTES, Dtype
from ablate.study.policy import policy_of
from ablate.study.training_recipes import Distill, Train
from ablate.training.forward_memory import CONTEXT, weight_bytes, whole_layers, widened
from ablate.training.layer_memory import is_merged, kept_in_layer, on_the_way_back, passing_forward, wide_width
from ablate.training.layer_shapes import (
    adapted,
    layers_of,
    num_adapter_weights,
    num_saved_weights,
)
from ablate.training.layers_on_cards import parts_of_layers
from ablate.training.loss_chunks import LossHead, loss_bytes

CHECKPOINTING = "gradient checkpointing"
SMALLER_CHUNK = "logits of fewer tokens at once"
OFFLOAD = "the teacher's layers in the machine's memory"


@dataclass(frozen=True)
class States:
    """Hidden states of a teacher's layers that the student's are compared with."""

    depth: int
    """Layers of the teacher."""
    width: int
    pairs: int
    """Of layers that are compared."""
    tensors: int = 2
    """In float32, of the teacher's width, that a pair keeps for the way back."""
    is_projected: bool = True


@dataclass(frozen=True)
class Beside:
    """What stands beside the student in a training."""

    teachers: tuple[ModelSizes, ...] = ()
    """Models that read the rows."""
    heads: int = 0
    """Weights of heads alone, of teachers whose hidden states were kept."""
    output_bytes: int = 0
    """Of what is known of a teacher about a token."""
    kept: str | None = None
    """The form in which that was kept, of one teacher; None: a teacher reads the rows."""
    projections: int = 0
    """Weights trained beside the student's."""
    writing: int = 0
    """Bytes held while answers are written, when no activation of a training is."""
    states: States | None = None


NOTHING = Beside()


@dataclass(frozen=True)
class TrainingMemory:
    """What a training holds, with all tokens of a micro-batch loss-bearing."""

    recipe: Train
    student: ModelSizes
    dtype: Dtype
    beside: Beside = NOTHING

    def at(self, tokens: int, row: int, *, is_checkpointed: bool = False, is_least: bool = False) -> Memory:
        """`tokens`: of a micro-batch, in rows of at most `row`. `is_least`: with the smallest chunk of logits."""
        student, width, lora = self.student, BYTES[self.dtype], self.recipe.lora
        by_layer = [kept_in_layer(layer, student, row, lora, self._adapted, width) for layer in layers_of(student)]
        kept, inside = sum(by_layer), on_the_way_back(student, width)
        if is_checkpointed or self.recipe.gradient_checkpointing:
            inside += max(by_layer, default=0)
            kept = len(by_layer) * student.hidden * width
        kept += student.hidden * (wide_width(width) + width) + self.beside.output_bytes + self._states(width)
        passing = max(
            self._loss(tokens, row, width, is_least=is_least),
            tokens * max(inside, student.layers * student.hidden * width if self.beside.states else 0),
            tokens * (self._forward_of_teachers(width, row) - kept),
        )
        passing += max(widened(model, width) for model in (student, *self.beside.teachers))
        if lora is None:  # gradients as they come, activations gone
            passing = max(passing, student.num_params * width + _widest_gradient(student, width) - tokens * kept)
        return Memory(
            context=CONTEXT,
            frozen=weight_bytes(student, width),
            teacher=self.teacher,
            trained=self._trained(width),
            kept=max(tokens * kept, self.beside.writing - passing),
            passing=passing,
        )

    def _states(self, width: int) -> int:
        """-> bytes a token, of compared hidden states."""
        states = self.beside.states
        if states is None:
            return 0
        of_student = width * self.student.hidden if states.is_projected else 0
        return states.pairs * (states.tensors * wide_width(width) * states.width + of_student)

    def _forward_of_teachers(self, width: int, row: int) -> int:
        """-> bytes a token, at most, while one of them reads it."""
        states = self.beside.states
        listed = (states.depth + 1) * states.width * width if states else 0
        return listed + max((passing_forward(model, width, row) for model in self.beside.teachers), default=0)

    @property
    def _adapted(self) -> frozenset[str]:
        lora = self.recipe.lora
        return frozenset(module.name for module in adapted(self.student, lora)) if lora else frozenset()

    def _trained(self, width: int) -> int:
        """-> what is trained, its gradient and two moments, all in float32 or wider."""
        student, lora, wide = self.student, self.recipe.lora, wide_width(width)
        beside = (4 * wide + self._narrow_copies(width)) * self.beside.projections
        whole = 4 * wide - (0 if width < wide else width)  # of float32 the weight itself is among the frozen ones
        if lora is None:
            return student.num_params * whole + beside
        modules = adapted(student, lora)
        merged = sum(module.width_out * module.width_in for module in modules) if is_merged(lora, width) else 0
        num_adapter = num_adapter_weights(modules, lora)
        narrow = num_adapter * width if width < wide else 0  # the factors that products are made of
        return wide * (4 * num_adapter + merged) + narrow + num_saved_weights(student, lora) * whole + beside

    def _narrow_copies(self, width: int) -> int:
        """-> bytes a weight of projections, of which each pair of layers has a copy in 16 bits."""
        return 0 if width >= 4 else width * (self.beside.states.pairs if self.beside.states else 1)

    def _loss(self, tokens: int, row: int, width: int, *, is_least: bool) -> int:
        vocabulary = max(model.vocab for model in (self.student, *self.beside.teachers))
        num_trained = self.student.num_head if self.recipe.lora is None else 0
        head = LossHead(vocabulary, self.dtype, self.student.is_capped, num_trained)
        kinds = loss_kinds(self.recipe, self.beside.kept)
        sizes = {kind: row if kind == "rows" else tokens for kind in kinds}
        least = 1 if is_least else None
        states = 2 * tokens * self.student.hidden * width
        return states + max(loss_bytes(kind, size, head, least) for kind, size in sizes.items())

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


def _widest_gradient(model: ModelSizes, width: int) -> int:
    """-> bytes of the largest weight's gradient, in float32 beside what it is added to."""
    return wide_width(width) * max((tensor.size for tensor in model.tensors), default=0) if width < 4 else 0


def _waiting(model: ModelSizes, width: int) -> int:
    """-> bytes of the layers that are not on the card, at the moment when most are."""
    layers = whole_layers(model, width)
    return max(0, sum(layers) - 2 * max(layers, default=0))


def loss_kinds(recipe: Train, kept: str | None = None) -> frozenset[str]:
    """-> which of LOSS_PEAKS a training's losses are. `kept`: the form in which its teacher's outputs were."""
    if not isinstance(recipe, Distill):
        return frozenset({"class"})
    losses = [recipe.loss, *([recipe.student_loss] if recipe.student_loss else [])]
    kinds = {_loss_kind(recipe, loss, kept) for loss in losses}
    return frozenset(kinds | ({"policy"} if policy_of(recipe) else set()))


def _loss_kind(recipe: Distill, loss: Loss, kept: str | None) -> str:
    if loss.needs in ("spans", "rows"):
        return loss.needs
    tempered = "" if recipe.temperature == 1 else ", tempered"
    if kept in ("vector", "top_k"):
        return {"vector": "vectors", "top_k": "kept top k"}[kept] + tempered
    if recipe.teacher_top_k:
        return f"cut{tempered}"
    if len(recipe.teachers) > 1:
        return f"mean of {recipe.teacher_mean}"
    return "live" if loss.is_graded else "differentiated"
