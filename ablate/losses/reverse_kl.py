"""Reverse KL: the student is pulled away from what the teacher finds unlikely."""

from typing import TYPE_CHECKING, Annotated, Literal

from ablate.core.values import IDENTITY
from ablate.losses.base import LOSSES, Distributions, Graded, Loss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("reverse_kl")
class ReverseKL(Loss):
    """KL(q || p) = sum_v q log(q / p).

    MiniLLM (Gu et al. 2023, 2306.08543) minimises it over the student's own text; here it is taken token by token over
    the data's, as torchtune's ReverseKLLoss and TRL's GKD at beta = 1 do.
    """

    name: Annotated[Literal["reverse_kl"], IDENTITY] = "reverse_kl"

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        return (student_logp_NV.exp() * (student_logp_NV - teacher_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        """S = log(q / p), but for a constant, which gives q (log(q / p) - KL)."""
        ratio_NV = both.logq_NV.sub_(both.logp_NV)
        loss_N = (both.q_NV * ratio_NV).sum(-1)
        return Graded(loss_N, ratio_NV.sub_(loss_N.unsqueeze(-1)).mul_(both.q_NV))
