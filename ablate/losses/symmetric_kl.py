"""Symmetric KL: forward and reverse KL, weighted."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES, Distributions, Graded, Loss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("symmetric_kl")
class SymmetricKL(Loss):
    """beta KL(p || q) + (1 - beta) KL(q || p) = sum_v (beta p - (1 - beta) q) log(p / q).

    Jeffreys' divergence, halved, at beta = 0.5. beta is torchtune's sym_kd_ratio, and 1 - lambda of DistiLLM's code.
    """

    name: Annotated[Literal["symmetric_kl"], IDENTITY] = "symmetric_kl"
    beta: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.5
    """Share of forward KL, the one weighted by the teacher; 1 would be forward_kl, 0 reverse_kl."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        weight_NV = self.beta * teacher_logp_NV.exp() - (1 - self.beta) * student_logp_NV.exp()
        return (weight_NV * (teacher_logp_NV - student_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        """Beta (q - p) + (1 - beta) q (log(q / p) - KL(q || p))."""
        _, q_NV, _, p_NV = both
        ratio_NV = both.logq_NV.sub_(both.logp_NV)
        forward_N, reverse_N = -(p_NV * ratio_NV).sum(-1), (q_NV * ratio_NV).sum(-1)
        grad_NV = ratio_NV.sub_(reverse_N.unsqueeze(-1)).mul_(q_NV).mul_(1 - self.beta)
        grad_NV.add_(p_NV.neg_().add_(q_NV), alpha=self.beta)
        return Graded(self.beta * forward_N + (1 - self.beta) * reverse_N, grad_NV)
