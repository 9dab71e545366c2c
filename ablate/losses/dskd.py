"""DSKD: each model's states carried into the other's space by trained projections, and compared there."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol

from ablate.core.values import IDENTITY
from ablate.losses.base import LOSSES, Loss

if TYPE_CHECKING:
    from torch import Tensor

# M loss-bearing tokens of one row in one of the models, D its width, V its vocabulary; m, d, v the other's


class RowStates(NamedTuple):
    """One model at the loss-bearing tokens of one row."""

    hidden_MD: "Tensor"
    """After the final norm, where each token is predicted."""
    inputs_MD: "Tensor"
    """Embeddings of the tokens that are read there."""
    targets_MD: "Tensor"
    """Embeddings of the tokens that are predicted there."""
    labels_M: "Tensor"
    logits_MV: "Tensor"
    """Not yet divided by the temperature."""


class Projections(Protocol):
    """Trained linear maps, and the two output heads, which no gradient reaches."""

    def query(self, x_M2D: "Tensor") -> "Tensor":
        """Of the student's width, twice -> the teacher's, twice."""

    def to_student(self, x_mD: "Tensor") -> "Tensor":
        """The teacher's width -> the student's."""

    def to_teacher(self, x_MD: "Tensor") -> "Tensor":
        """The student's width -> the teacher's."""

    def student_logits(self, x_MD: "Tensor") -> "Tensor":
        """By the student's head."""

    def teacher_logits(self, x_mD: "Tensor") -> "Tensor":
        """By the teacher's head."""

    def product(self, a_MK: "Tensor", b_KN: "Tensor") -> "Tensor":
        """-> a b, as this device multiplies best."""


@LOSSES.register("dskd")
class DSKD(Loss):
    """CE(s, y) + sum_M [argmax s = y] KL(s || q) + sum_m KL(p || t): dual-space KD with cross-model attention.

    Zhang et al. 2024 (2406.17328, section 3; DSKD with CMA). A token of the student attends to those of the teacher:
    A = softmax(Q K' / sqrt(2 d)), Q = f_q([e; e_y]) of the student's embeddings of the token read and the token
    predicted, K = [e; e_y] of the teacher's, divided by their standard deviation. In the student's space
    s = W_S A f_t2s(h_T / std + e_y / std), whose own gradient goes to the projections alone, by its cross-entropy, and
    which teaches q where it is right; in the teacher's t = W_T A' f_s2t(h_S), which the teacher's p teaches, A' being
    the softmax over the student's tokens. Not 0 where the models agree: the cross-entropy stays. Beside the class loss
    of 1 - kd_ratio. What differs from the authors' code: standard deviations are of a row's loss-bearing tokens, not of
    a padded batch, which would make a row's loss depend on its neighbours; the projections (linear, with a bias) have
    the learning rate of the rest, theirs was 1e-3; both KLs are forward, at the study's temperature.
    """

    needs: ClassVar[str] = "rows"
    crosses_tokenizers: ClassVar[bool] = True

    name: Annotated[Literal["dskd"], IDENTITY] = "dskd"

    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        raise TypeError("dskd compares hidden states of whole rows, and has nothing to say of logits alone")

    def of_row(self, student: RowStates, teacher: RowStates, maps: Projections, temperature: float) -> "Tensor":
        """-> the loss of a row, summed; its gradient reaches the student's states and logits, and the projections."""
        import torch
        from torch.nn.functional import cross_entropy

        index_m2d = torch.cat((teacher.inputs_MD, teacher.targets_MD), -1)
        query_M2d = maps.query(torch.cat((student.inputs_MD, student.targets_MD), -1))
        score_Mm = maps.product(query_M2d, _scaled(index_m2d).T) / math.sqrt(index_m2d.shape[-1])
        value_mD = maps.to_student(_scaled(teacher.hidden_MD) + _scaled(teacher.targets_MD))
        projected_MV = maps.student_logits(maps.product(score_Mm.softmax(-1), value_mD))
        is_right_M = projected_MV.argmax(-1) == student.labels_M
        in_student_M = _kl(projected_MV.detach() / temperature, student.logits_MV / temperature) * is_right_M
        back_mv = maps.teacher_logits(maps.product(score_Mm.T.softmax(-1), maps.to_teacher(student.hidden_MD)))
        in_teacher_m = _kl(teacher.logits_MV / temperature, back_mv / temperature)
        learnt = cross_entropy(projected_MV, student.labels_M, reduction="sum")
        return learnt + in_student_M.sum() + in_teacher_m.sum()


def _scaled(x_MD: "Tensor") -> "Tensor":
    """Divided by the standard deviation of all its numbers."""
    return x_MD / x_MD.std()


def _kl(p_MV: "Tensor", q_MV: "Tensor") -> "Tensor":
    """-> KL(softmax p || softmax q) of each token (M)."""
    logp_MV = p_MV.log_softmax(-1)
    return (logp_MV.exp() * (logp_MV - q_MV.log_softmax(-1))).sum(-1)
