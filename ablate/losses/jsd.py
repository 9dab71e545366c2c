"""Generalised Jensen-Shannon divergence: both models against their mixture; bounded, between the two KLs."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import mixture

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("jsd")
class JSD(Loss):
    """beta KL(p || m) + (1 - beta) KL(q || m), with the mixture m = beta p + (1 - beta) q.

    GKD (Agarwal et al. 2023, 2306.13649, eq. 1). Near beta = 0 it is beta times forward KL, near beta = 1 it is
    1 - beta times reverse KL, so it is small there; TRL's GKD switches to the plain KLs at 0 and 1.
    DistiLLM's code weighs the student: its lambda is 1 - beta.
    """

    takes_zeros: ClassVar[bool] = True

    name: Annotated[Literal["jsd"], IDENTITY] = "jsd"
    beta: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.5
    """The teacher's share of the mixture."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        mixed_logp_NV = (teacher_logp_NV + math.log(self.beta)).logaddexp(student_logp_NV + math.log1p(-self.beta))
        teacher_kl_N = (teacher_logp_NV.exp() * (teacher_logp_NV - mixed_logp_NV)).sum(-1)
        student_kl_N = (student_logp_NV.exp() * (student_logp_NV - mixed_logp_NV)).sum(-1)
        return self.beta * teacher_kl_N + (1 - self.beta) * student_kl_N

    def graded(self, both: Distributions) -> Graded:
        """S = (1 - beta) log(q / m), which gives (1 - beta) q (log(q / m) - KL(q || m))."""
        logq_NV, q_NV, logp_NV, p_NV = both
        mixed_logp_NV = mixture(p_NV, q_NV, self.beta).log_()
        teacher_kl_N = logp_NV.sub_(mixed_logp_NV).mul_(p_NV).sum(-1)
        ratio_NV = logq_NV.sub_(mixed_logp_NV)
        student_kl_N = (q_NV * ratio_NV).sum(-1)
        grad_NV = ratio_NV.sub_(student_kl_N.unsqueeze(-1)).mul_(q_NV).mul_(1 - self.beta)
        return Graded(self.beta * teacher_kl_N + (1 - self.beta) * student_kl_N, grad_NV)
