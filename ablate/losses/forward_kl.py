"""Forward KL: the student is pulled to cover everything the teacher finds likely."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.core.values import IDENTITY
from ablate.losses.base import LOSSES, Distributions, Graded, Loss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("forward_kl")
class ForwardKL(Loss):
    """KL(p || q) = sum_v p log(p / q).

    Hinton, Vinyals, Dean 2015 (1503.02531). torchtune's ForwardKLLoss is this plus the teacher's entropy H(p).
    """

    needs: ClassVar[str] = "vector"
    takes_zeros: ClassVar[bool] = True

    name: Annotated[Literal["forward_kl"], IDENTITY] = "forward_kl"

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        student_logp_NV = student_NV.log_softmax(-1)
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        return (teacher_logp_NV.exp() * (teacher_logp_NV - student_logp_NV)).sum(-1)

    def graded(self, both: Distributions) -> Graded:
        """S = -p / q, which gives q - p."""
        loss_N = both.logp_NV.sub_(both.logq_NV).mul_(both.p_NV).sum(-1)
        return Graded(loss_N, both.p_NV.neg_().add_(both.q_NV))
