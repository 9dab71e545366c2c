"""Skew forward KL: forward KL against the student with some teacher mixed in, which bounds it."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import teacher_against_mixture

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("skew_forward_kl")
class SkewForwardKL(Loss):
    """KL(p || m), with the mixture m = beta p + (1 - beta) q.

    DistiLLM (Ko et al. 2024, 2402.03898): beta is its alpha (0.1), lambda in its code.
    """

    takes_zeros: ClassVar[bool] = True

    name: Annotated[Literal["skew_forward_kl"], IDENTITY] = "skew_forward_kl"
    beta: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.1
    """The teacher's share of the mixture."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        mixed_logp_NV = (teacher_logp_NV + math.log(self.beta)).logaddexp(student_logp_NV + math.log1p(-self.beta))
        return (teacher_logp_NV.exp() * (teacher_logp_NV - mixed_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        return teacher_against_mixture(both, self.beta)
