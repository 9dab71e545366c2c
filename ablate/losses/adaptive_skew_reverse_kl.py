"""Adaptive skew reverse KL: the more the models differ at a token, the more of the student is mixed in there."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.adaptive_skew_forward_kl import LEAST_SHARE, adaptive_share
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import student_against_mixture

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("adaptive_skew_reverse_kl")
class AdaptiveSkewReverseKL(Loss):
    """KL(q || m), with the mixture m = (1 - a) p + a q, where a = 1 - beta gap / |sum_v q (q - p)|, at most 1 - beta.

    The half of DistiLLM-2 that is meant for the student's own text; see adaptive_skew_forward_kl. Its alpha weighs the
    student here: its alpha_0 (base_alpha_2) is 1 - beta, its m (logq_logp) is gap. Its code holds the student within m
    constant as well; we differentiate it, as DistiLLM and skew_reverse_kl do.
    """

    name: Annotated[Literal["adaptive_skew_reverse_kl"], IDENTITY] = "adaptive_skew_reverse_kl"
    beta: Annotated[Num, IDENTITY, Field(gt=0, lt=1 - LEAST_SHARE)] = 0.9
    """The teacher's share of the mixture, at least."""
    gap: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.1
    """Where the share is beta, and beyond; in DistiLLM-2 the mean at the start of a run."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        p_NV, q_NV = teacher_logp_NV.exp(), student_logp_NV.detach().exp()
        share_N1 = adaptive_share((q_NV * (q_NV - p_NV)).sum(-1), self.gap, 1 - self.beta)
        mixed_logp_NV = (teacher_logp_NV + (-share_N1).log1p()).logaddexp(student_logp_NV + share_N1.log())
        return (student_logp_NV.exp() * (student_logp_NV - mixed_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        gap_N = (both.q_NV - both.p_NV).mul_(both.q_NV).sum(-1)
        return student_against_mixture(both, 1 - adaptive_share(gap_N, self.gap, 1 - self.beta))
