"""The fused loss: over gathered tokens, in chunks, its gradient formed on the way forward; no M x V tensor is kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ablate.losses import Loss, parse
from ablate.study.policy import Policy, policy_of
from ablate.study.training_recipes import Distill
from ablate.training.head import Head
from ablate.training.loss_chunks import chunk_tokens
from ablate.training.products import is_card

# M loss-bearing tokens, C of them in one chunk, D hidden width, V vocabulary


class TopKForm(NamedTuple):
    """How much of a teacher is learnt from: see `study.training_recipes.Distill.teacher_top_k`."""

    k: int
    has_rest: bool
    """Whether all other tokens are one event; else the teacher gives them no probability."""


@dataclass(frozen=True)
class Objective:
    """loss = (1 - kd_ratio) CE + kd_ratio KD(T) [T^2 if scale_by_t2], both sums over tokens."""

    kd_ratio: float
    kd: Loss
    temperature: float = 1.0
    scale_by_t2: bool = False
    top_k: TopKForm | None = None
    """None: all of the teacher."""
    policy: Policy | None = None
    """Where not each token's divergence is lowered, but that of whole answers."""

    @property
    def kd_weight(self) -> float:
        return self.kd_ratio * (self.temperature**2 if self.scale_by_t2 else 1.0)


CLASS_LOSS = Objective(0.0, parse("forward_kl"))
"""Fine-tuning: cross-entropy alone."""


def objective(recipe: Distill) -> Objective:
    """-> what a distillation minimises."""
    return Objective(recipe.kd_ratio, recipe.loss, recipe.temperature, recipe.scale_by_t2, _top_k(recipe))


def own_objective(recipe: Distill) -> Objective | None:
    """-> what a distillation minimises on the answers that the student writes: KD alone. None where it writes none."""
    if not recipe.writes_in_training:
        return None
    loss = recipe.student_loss or recipe.loss
    return Objective(1.0, loss, recipe.temperature, recipe.scale_by_t2, _top_k(recipe), policy_of(recipe))


def _top_k(recipe: Distill) -> TopKForm | None:
    k = recipe.teacher_top_k
    return None if k is None else TopKForm(k, recipe.teacher_top_k_rest == "event")


class LossSums(NamedTuple):
    """Summed over tokens in float64: the KL of a good student is a small difference of large numbers."""

    class_loss: Tensor
    kd_loss: Tensor
    """At the temperature used, without T^2."""
    teacher_entropy: Tensor
    """At the temperature used; of a teacher that is cut, of what is left."""
    cut: Tensor | None = None
    """Of a teacher that is cut, what that cost: probability left out, entropy lost, KL error (3)."""

    def __add__(self, other: object) -> "LossSums":
        if not isinstance(other, LossSums):
            return NotImplemented
        class_loss, kd_loss, entropy = (a + b for a, b in zip(self[:3], other[:3], strict=True))
        return LossSums(class_loss, kd_loss, entropy, self.cut).with_cut(other.cut)

    def with_cut(self, cut: Tensor | None) -> "LossSums":
        """-> the same, and what a cut cost of other tokens."""
        return self if cut is None else self._replace(cut=cut if self.cut is None else self.cut + cut)

    @classmethod
    def zero(cls, device: str) -> "LossSums":
        return cls(*torch.zeros(3, dtype=torch.float64, device=device))

    @classmethod
    def over(cls, class_C: Tensor, kd_C: Tensor | None = None, entropy_C: Tensor | None = None) -> "LossSums":
        """-> sums of what each token has; without a teacher 0."""
        nothing = class_C.new_zeros(())
        parts = (class_C, nothing if kd_C is None else kd_C, nothing if entropy_C is None else entropy_C)
        return cls(*(part.sum(dtype=torch.float64) for part in parts))


class Scratch:
    """The memory in which the loss is computed, chunk after chunk, and how much of it there is.

    On a CPU it is kept and written over: a fresh page costs more than the product that fills it. On a GPU nothing is
    kept here: its allocator keeps what is freed.
    """

    def __init__(self, logit_bytes: int | None = None) -> None:
        self.logit_bytes = logit_bytes
        """What one tensor of a chunk's logits may take; None: what suits the device."""
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, hidden_CD: Tensor, vocabulary: int) -> Tensor | None:
        """-> C x V in float32 or wider, whatever was written to it last; two names are two tensors."""
        if is_card(hidden_CD):
            return None
        size, dtype = len(hidden_CD) * vocabulary, torch.promote_types(hidden_CD.dtype, torch.float32)
        kept = self._kept.get(name)
        if kept is None or kept.dtype != dtype or kept.numel() < size:
            kept = self._kept[name] = torch.empty(size, dtype=dtype)
        return kept[:size].view(len(hidden_CD), vocabulary)


class StudentChunk(NamedTuple):
    """The student at some tokens, so few that all their logits are held at once."""

    tokens: slice
    """Which of the M tokens."""
    hidden_CD: Tensor
    logits_CV: Tensor
    """May be written over, but for capped ones, which `head.backward` reads once more."""
    labels_C: Tensor
    head: Head

    def logits_to_overwrite(self) -> Tensor:
        return self.logits_CV if self.head.softcap is None else self.logits_CV.clone()

    def backward(self, grad_CV: Tensor) -> Tensor:
        """Gradient in the logits, used up -> gradient in the hidden states."""
        return self.head.backward(grad_CV, self.hidden_CD, self.logits_CV)


class ChunkLoss(NamedTuple):
    """The loss of a chunk, summed, and its gradient in the hidden states."""

    grad_CD: Tensor
    sums: LossSums


class TeacherOutputs(Protocol):
    """What is known of a teacher about M tokens, which decides how the loss against it is computed."""

    def chunk_loss(self, objective: Objective, student: StudentChunk, scratch: Scratch) -> ChunkLoss:
        """-> the loss of the tokens of a chunk; a trained head's gradient is added to its own."""


class FusedLoss(NamedTuple):
    """The loss of some tokens, summed, and its gradient in their hidden states."""

    grad_MD: Tensor
    sums: LossSums


@torch.no_grad()
def fused_loss(
    objective: Objective,
    hidden_MD: Tensor,
    head: Head,
    labels_M: Tensor,
    teacher: TeacherOutputs,
    scratch: Scratch | None = None,
    cuts: Iterable[slice] | None = None,
) -> FusedLoss:
    """-> sums over the tokens and the gradient of the summed loss; a trained head's gradient is added to its own.

    `cuts`: the chunks, of a teacher that says something of several tokens together.
    """
    scratch = scratch or Scratch()
    grad_MD = torch.empty_like(hidden_MD)
    sums = LossSums.zero(str(hidden_MD.device))
    with head.summing_grad():
        for tokens in chunks(hidden_MD, head.vocabulary, scratch.logit_bytes) if cuts is None else cuts:
            hidden_CD = hidden_MD[tokens]
            logits_CV = head.logits(hidden_CD, scratch("student", hidden_CD, head.vocabulary))
            student = StudentChunk(tokens, hidden_CD, logits_CV, labels_M[tokens], head)
            grad_MD[tokens], chunk_sums = teacher.chunk_loss(objective, student, scratch)
            sums += chunk_sums
    return FusedLoss(grad_MD, sums)


def chunks(hidden_MD: Tensor, vocabulary: int, logit_bytes: int | None = None) -> Iterator[slice]:
    size = chunk_size(hidden_MD, vocabulary, logit_bytes)
    for begin in range(0, len(hidden_MD), size):
        yield slice(begin, begin + size)


def chunk_size(hidden_MD: Tensor, vocabulary: int, logit_bytes: int | None = None) -> int:
    """-> tokens of which all logits are held at once, one tensor of them in `logit_bytes`."""
    return chunk_tokens(vocabulary, hidden_MD.device.type, logit_bytes)
