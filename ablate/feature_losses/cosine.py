"""Cosine: the student's states are turned to the direction of the teacher's, whatever their length."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ablate.core.values import IDENTITY
from ablate.feature_losses.base import FEATURE_LOSSES, FeatureLoss

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, D hidden width of the teacher

SHORTEST = 1e-12
"""Length of a state below which it has no direction."""


@FEATURE_LOSSES.register("cosine")
class Cosine(FeatureLoss):
    """1 - h_S . h_T / (|h_S| |h_T|).

    DistilBERT's on the last layer (Sanh et al. 2019, 1910.01108). Patient KD's loss (Sun et al. 2019, 1908.09355),
    |h_S/|h_S| - h_T/|h_T||^2, is twice this one; it is summed over the layers, ours averaged.
    """

    kept_tensors: ClassVar[int] = 2

    name: Annotated[Literal["cosine"], IDENTITY] = "cosine"

    def __call__(self, student_ND: "Tensor", teacher_ND: "Tensor") -> "Tensor":
        from torch.nn.functional import normalize

        towards_N = (normalize(student_ND, dim=-1, eps=SHORTEST) * normalize(teacher_ND, dim=-1, eps=SHORTEST)).sum(-1)
        return 1 - towards_N
