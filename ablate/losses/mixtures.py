"""The mixture of teacher and student that skewed losses compare one of them with, and what its gradient needs."""

from typing import TYPE_CHECKING

from ablate.losses.base import Distributions, Graded

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


def mixture(p_NV: "Tensor", q_NV: "Tensor", share: "float | Tensor") -> "Tensor":
    """-> m = share p + (1 - share) q, of which a logarithm can be taken where both have rounded to 0."""
    import torch

    return (p_NV * share).add_(q_NV * (1 - share)).clamp_(min=torch.finfo(q_NV.dtype).tiny)


def teacher_against_mixture(both: Distributions, share: "float | Tensor") -> Graded:
    """KL(p || m), m = share p + (1 - share) q: q s = -w p with w = (1 - share) q / m, so q sum_v w p - w p."""
    _, q_NV, logp_NV, p_NV = both
    mixed_NV = mixture(p_NV, q_NV, share)
    weighted_NV = (q_NV / mixed_NV).mul_(1 - share).mul_(p_NV)
    loss_N = logp_NV.sub_(mixed_NV.log_()).mul_(p_NV).sum(-1)
    return Graded(loss_N, (q_NV * weighted_NV.sum(-1, keepdim=True)).sub_(weighted_NV))


def student_against_mixture(both: Distributions, share: "float | Tensor") -> Graded:
    """KL(q || m), m = share p + (1 - share) q: s = log(q / m) - (1 - share) q / m, but for a constant."""
    logq_NV, q_NV, _, p_NV = both
    mixed_NV = mixture(p_NV, q_NV, share)
    weight_NV = (q_NV / mixed_NV).mul_(1 - share)
    ratio_NV = logq_NV.sub_(mixed_NV.log_())
    loss_N = (q_NV * ratio_NV).sum(-1)
    return Graded(loss_N, centred(ratio_NV.sub_(weight_NV), q_NV))


def centred(slope_NV: "Tensor", q_NV: "Tensor") -> "Tensor":
    """-> q (s - sum_v q s), in the slope's memory."""
    return slope_NV.sub_((q_NV * slope_NV).sum(-1, keepdim=True)).mul_(q_NV)
