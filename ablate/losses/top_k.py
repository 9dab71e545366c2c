"""Top-k: forward KL that tells apart only the teacher's k likeliest tokens; all others are one event."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Int
from ablate.losses.base import LOSSES, Distributions, Graded, Loss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary, k tokens that are kept, E events: those tokens and the rest


@LOSSES.register("top_k")
class TopK(Loss):
    """sum_{v in K} p log(p / q) + p_rest log(p_rest / q_rest), with K the teacher's k likeliest and p_rest = 1 - p(K).

    Never more than forward KL, which it is at k = V. Three objectives go by this name; all sum over K alone but ours:
    1. teacher renormalised, student over all of V: sum_K p' log(p' / q), p' = p / p(K). NeMo RL (zero_outside_topk,
       forward), DistillKit (zero). Its best student is p', not p: where q = p it is -log p(K) and pushes q from p
       (the bias of Anshumann et al. 2025, 2503.16870);
    2. both renormalised: sum_K p' log(p' / q'). NeMo RL (without zero_outside_topk), Axolotl. Blind to q(K), so a
       student may put any mass outside K;
    3. neither renormalised, the rest one event: this one. TRL (loss_add_tail at beta = 0), DistillKit
       (symmetric_uniform). Least, and 0, where q = p.
    Where tokens tie for the k-th place, either is kept.
    """

    name: Annotated[Literal["top_k"], IDENTITY] = "top_k"
    k: Annotated[Int, IDENTITY, Field(ge=1)] = 64
    """Tokens kept."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        top_Nk = teacher_NV.topk(min(self.k, teacher_NV.shape[-1])).indices
        student_logp_NE = _events(student_NV.log_softmax(-1), top_Nk)
        teacher_logp_NE = _events(teacher_NV.log_softmax(-1), top_Nk)
        return (teacher_logp_NE.exp() * (teacher_logp_NE - student_logp_NE)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        """Q - p of the kept tokens; q (q_rest - p_rest) / q_rest of the others."""
        top_Nk = both.logp_NV.topk(min(self.k, both.logp_NV.shape[-1])).indices
        logq_NE, logp_NE = _events(both.logq_NV, top_Nk), _events(both.logp_NV, top_Nk)
        kept, error_NE = top_Nk.shape[-1], logq_NE.exp() - logp_NE.exp()
        loss_N = (logp_NE.exp() * (logp_NE - logq_NE)).sum(-1)
        grad_NV = both.logq_NV
        if kept < grad_NV.shape[-1]:
            grad_NV.sub_(logq_NE[:, kept:]).clamp_(max=0).exp_().mul_(error_NE[:, kept:])
        return Graded(loss_N, grad_NV.scatter_(-1, top_Nk, error_NE[:, :kept]))


def _events(logp_NV: "Tensor", top_Nk: "Tensor") -> "Tensor":
    """-> log-probabilities of the kept tokens, then of the rest: summed, since 1 - p(K) would cancel."""
    import torch

    kept_Nk = logp_NV.gather(-1, top_Nk)
    if top_Nk.shape[-1] == logp_NV.shape[-1]:
        return kept_Nk
    rest_N1 = logp_NV.scatter(-1, top_Nk, -float("inf")).logsumexp(-1, keepdim=True)
    return torch.cat((kept_Nk, rest_N1), -1)
