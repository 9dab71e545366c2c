"""Mean squared error: the student's states are pulled to the teacher's own values."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.core.values import IDENTITY
from ablate.feature_losses.base import FEATURE_LOSSES, FeatureLoss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, D hidden width of the teacher


@FEATURE_LOSSES.register("mse")
class MSE(FeatureLoss):
    """1/D sum_d (h_S - h_T)^2.

    TinyBERT's hidden loss (Jiao et al. 2019, 1909.10351, eq. 8), which their code takes over the padding too; nothing
    is normalised, so a few dimensions of large values, which most LLMs have, weigh most.
    """

    kept_tensors: ClassVar[int] = 1

    name: Annotated[Literal["mse"], IDENTITY] = "mse"

    def __call__(self, student_ND: "Tensor", teacher_ND: "Tensor") -> "Tensor":
        return (student_ND - teacher_ND).square().mean(-1)
