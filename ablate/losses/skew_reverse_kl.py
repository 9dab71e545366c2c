"""Skew reverse KL: reverse KL against the teacher with some student mixed in, which bounds it."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import student_against_mixture

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("skew_reverse_kl")
class SkewReverseKL(Loss):
    """KL(q || m), with the mixture m = beta p + (1 - beta) q.

    DistiLLM (Ko et al. 2024, 2402.03898) weighs the student here: its alpha (0.1), lambda in its code, is 1 - beta.
    """

    takes_zeros: ClassVar[bool] = True

    name: Annotated[Literal["skew_reverse_kl"], IDENTITY] = "skew_reverse_kl"
    beta: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.9
    """The teacher's share of the mixture."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        mixed_logp_NV = (teacher_logp_NV + math.log(self.beta)).logaddexp(student_logp_NV + math.log1p(-self.beta))
        return (student_logp_NV.exp() * (student_logp_NV - mixed_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        return student_against_mixture(both, self.beta)
