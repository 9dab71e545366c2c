"""Adaptive skew forward KL: the more the models differ at a token, the more of the teacher is mixed in there."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import teacher_against_mixture

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary

LEAST_SHARE = 0.01
"""Of the model that is mixed in; DistiLLM-2's code clips there."""


def adaptive_share(gap_N: "Tensor", usual_gap: float, most: float) -> "Tensor":
    """-> a = 1 - (1 - most) usual_gap / |gap| (N x 1), within LEAST_SHARE and most."""
    share_N = 1 - (1 - most) * usual_gap / gap_N.abs()
    return share_N.clamp(LEAST_SHARE, most).unsqueeze(-1)


@LOSSES.register("adaptive_skew_forward_kl")
class AdaptiveSkewForwardKL(Loss):
    """KL(p || m), with the mixture m = a p + (1 - a) q, where a = 1 - (1 - beta) gap / |sum_v p (p - q)|, at most beta.

    DistiLLM-2 (Ko et al. 2025, 2503.07067, eq. 7 and algorithm 1): log(p / m) is about (1 - a) (p - q), which a is to
    keep constant, so that easy tokens get little of the teacher. beta is its alpha_0 (base_alpha_1 in its code), gap
    its m (logp_logq). It takes p - q at the tokens of a text that the teacher wrote, averaged over the row; a loss
    here sees logits alone, so we take what that is on average, token by token. a is a constant in the gradient. As
    published, their code never sets m, and alpha stays 0.1. What is adaptive in DistiLLM (2402.03898) is something
    else: how often the student's own text is used.
    """

    name: Annotated[Literal["adaptive_skew_forward_kl"], IDENTITY] = "adaptive_skew_forward_kl"
    beta: Annotated[Num, IDENTITY, Field(gt=LEAST_SHARE, lt=1)] = 0.1
    """The teacher's share of the mixture, at most."""
    gap: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = 0.1
    """Where the share is beta, and beyond; in DistiLLM-2 the mean at the start of a run."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        p_NV, q_NV = teacher_logp_NV.exp(), student_logp_NV.detach().exp()
        share_N1 = adaptive_share((p_NV * (p_NV - q_NV)).sum(-1), self.gap, self.beta)
        mixed_logp_NV = (teacher_logp_NV + share_N1.log()).logaddexp(student_logp_NV + (-share_N1).log1p())
        return (p_NV * (teacher_logp_NV - mixed_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        gap_N = (both.p_NV - both.q_NV).mul_(both.p_NV).sum(-1)
        return teacher_against_mixture(both, adaptive_share(gap_N, self.gap, self.beta))
