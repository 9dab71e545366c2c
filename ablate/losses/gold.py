"""GOLD: forward KL on the tokens that two vocabularies share, ULD on the others, over spans of the same text."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.core.values import IDENTITY, Num
from ablate.losses.base import LOSSES
from ablate.losses.spans import Common, SpanLoss, SpanTokens, sorted_distance

if TYPE_CHECKING:
    from torch import Tensor

# S spans, V vocabulary of a model, K tokens common to both


@LOSSES.register("gold")
class GOLD(SpanLoss):
    """w sum_{v in K} P log(P / Q) + (1 - w) sum_i |P_(i) - Q_(i)|, the second over the tokens beside K, sorted.

    P(v) = p(v | x) prod_{i > 1} p(y_i | y_<i, x) of a span y after the text x, by the chain rule; Q likewise; K the
    tokens common to both. "Unlocking on-policy distillation for any model family" (Patino et al. 2025), as TRL's
    GOLDTrainer with use_uld_loss, uld_use_hybrid_loss and beta 0. With one tokenizer it is forward KL. Of spans of
    several tokens P and Q sum to less than 1, so the first sum may be below 0. What differs from TRL:
    1. p(y_i | ...) is taken where y_i is predicted; TRL takes the answer's logits without the shift by one token;
    2. tokens are common that stand for the same bytes: TRL compares how vocabularies write them, so `Ġthe` and `▁the`,
       or two ends of sequence, are never one;
    3. logarithms are exact, where TRL's are of probabilities of 1e-8 and more;
    4. the ends of sequence are a span, which TRL skips (uld_skip_student_eos), and what is summed is divided by the
       loss-bearing tokens of the student, as every loss here, not by the spans of a row.
    """

    name: Annotated[Literal["gold"], IDENTITY] = "gold"
    common_weight: Annotated[Annotated[Num, Field(ge=0, le=1)] | None, IDENTITY] = None
    """w; unless given, the share of the teacher's vocabulary that is common."""

    def over_spans(self, student: SpanTokens, teacher: SpanTokens, common: Common) -> "Tensor":
        logp_SV, logq_SU = teacher.chained(), student.chained()
        logp_SK, logq_SK = logp_SV[:, common.teacher_K], logq_SU[:, common.student_K]
        shared_S = (logp_SK.exp() * (logp_SK - logq_SK)).sum(-1)
        p_SR, q_SR = _beside(logp_SV, common.teacher_K).exp(), _beside(logq_SU, common.student_K).exp()
        weight = len(common.teacher_K) / logp_SV.shape[-1] if self.common_weight is None else self.common_weight
        if not (p_SR.shape[-1] and q_SR.shape[-1]):  # of one of them all tokens are common
            return weight * shared_S
        return weight * shared_S + (1 - weight) * sorted_distance(p_SR, q_SR)


def _beside(x_SV: "Tensor", common_K: "Tensor") -> "Tensor":
    """-> the columns of the tokens that are not common."""
    is_other_V = common_K.new_ones(x_SV.shape[-1]).index_fill(0, common_K, 0).bool()
    return x_SV[:, is_other_V]
