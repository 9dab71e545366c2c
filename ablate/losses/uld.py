"""ULD: how likely the likeliest tokens are, whichever they are; it asks for no common vocabulary."""

from typing import TYPE_CHECKING, Annotated, Literal

from ablate.core.values import IDENTITY
from ablate.losses.base import LOSSES
from ablate.losses.spans import Common, SpanLoss, SpanTokens, sorted_distance

if TYPE_CHECKING:
    from torch import Tensor

# S spans, V vocabulary of a model


@LOSSES.register("uld")
class ULD(SpanLoss):
    """sum_i |p_(i) - q_(i)|, both distributions sorted from the largest, the shorter vocabulary followed by zeros.

    Boizard et al. 2024 (2402.12030, eq. 5: Wasserstein distance with every two tokens equally far apart). The paper
    compares the i-th token of the answer with the i-th; once one tokenizer cuts a word in two, that sets each model at
    another place of the text. We compare where both begin a span of the same text: p and q are what they say comes next
    after the same characters. Where both cut alike it is the paper's. Its weight, 1.5 beside a class loss of 1, is
    kd_ratio 0.6 here; TRL's `use_extended_uld` multiplies in the rest of the span, as gold does.
    """

    name: Annotated[Literal["uld"], IDENTITY] = "uld"

    def over_spans(self, student: SpanTokens, teacher: SpanTokens, common: Common) -> "Tensor":
        p_SV, q_SU = (side.logits_NV[side.begins_S].softmax(-1) for side in (teacher, student))
        return sorted_distance(p_SV, q_SU)
