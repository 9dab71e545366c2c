"""Total variation distance: how much probability lies elsewhere; between 0 and 1."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.core.values import IDENTITY
from ablate.losses.base import LOSSES, Distributions, Graded, Loss
from ablate.losses.mixtures import centred

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


@LOSSES.register("tvd")
class TVD(Loss):
    """1/2 sum_v |p - q|.

    f-DISTILL (Wen et al. 2023, 2307.15190); tv_distance in DistiLLM's code.
    """

    takes_zeros: ClassVar[bool] = True

    name: Annotated[Literal["tvd"], IDENTITY] = "tvd"

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        return (teacher_NV.softmax(-1) - student_NV.softmax(-1)).abs().sum(-1) / 2

    def graded(self, both: Distributions) -> Graded:
        """S = sign(q - p) / 2."""
        difference_NV = both.p_NV.neg_().add_(both.q_NV)
        loss_N = difference_NV.abs().sum(-1) / 2
        return Graded(loss_N, centred(difference_NV.sign_().div_(2), both.q_NV))
