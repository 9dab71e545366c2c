"""Losses between models of other tokenizers: of spans of tokens that stand for the same text in both."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ablate.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

# N tokens of S spans, V vocabulary of one of the models, K tokens common to both


class SpanTokens(NamedTuple):
    """One model at the tokens of some spans, laid end to end."""

    logits_NV: "Tensor"
    """Divided by the temperature."""
    labels_N: "Tensor"
    """The tokens themselves."""
    begins_S: "Tensor"
    """Where each span begins; it ends where the next does."""

    def chained(self) -> "Tensor":
        """-> S x V: log of p(v | x) prod_{i > 1} p(y_i | y_<i, x), with y the tokens of the span and x what precedes.

        At v = y_1 it is the probability of the span; the whole is no distribution where a span has several tokens.
        """
        logp_NV = self.logits_NV.log_softmax(-1)
        rest_N = logp_NV.gather(-1, self.labels_N[:, None]).squeeze(-1).index_fill(0, self.begins_S, 0.0)
        return logp_NV[self.begins_S] + self._summed(rest_N)[:, None]

    def _summed(self, x_N: "Tensor") -> "Tensor":
        """-> sums over each span."""
        is_first_N = self.labels_N.new_zeros(len(self.labels_N)).index_fill(0, self.begins_S, 1)
        return x_N.new_zeros(len(self.begins_S)).index_add(0, is_first_N.cumsum(0) - 1, x_N)


class Common(NamedTuple):
    """Tokens of two vocabularies that stand for the same text, pair by pair."""

    student_K: "Tensor"
    teacher_K: "Tensor"


class SpanLoss(Loss):
    """A loss over spans; of models with one vocabulary, where every token is a span of its own, it can be called."""

    needs: ClassVar[str] = "spans"
    crosses_tokenizers: ClassVar[bool] = True

    @abstractmethod
    def over_spans(self, student: SpanTokens, teacher: SpanTokens, common: Common) -> "Tensor":
        """-> loss per span (S)."""

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        import torch

        each_N = torch.arange(len(student_NV), device=student_NV.device)
        all_V = torch.arange(student_NV.shape[-1], device=student_NV.device)
        student, teacher = (SpanTokens(x_NV, torch.zeros_like(each_N), each_N) for x_NV in (student_NV, teacher_NV))
        return self.over_spans(student, teacher, Common(all_V, all_V))


def sorted_distance(p_SV: "Tensor", q_SU: "Tensor") -> "Tensor":
    """-> sum_i |p_(i) - q_(i)| (S), both sorted from the largest, the shorter followed by zeros."""
    from torch.nn.functional import pad

    most = max(p_SV.shape[-1], q_SU.shape[-1])
    p_SM, q_SM = (pad(x.sort(-1, descending=True).values, (0, most - x.shape[-1])) for x in (p_SV, q_SU))
    return (p_SM - q_SM).abs().sum(-1)
