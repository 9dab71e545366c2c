"""The loss of one micro-batch, by what is lowered on it: the divergence at each token, or that of whole answers."""

from collections.abc import Iterator

from torch import Tensor

from ablate.training.batches import MicroBatch
from ablate.training.dual_space import DualSpaceOutputs
from ablate.training.head import Head
from ablate.training.loss import FusedLoss, Objective, Scratch, TeacherOutputs, fused_loss
from ablate.training.policy_gradient import Answers, TeacherLogits, policy_gradient_loss
from ablate.training.teacher_spans import TeacherSpans

# M loss-bearing tokens, D hidden width


def batch_loss(
    objective: Objective, hidden_MD: Tensor, head: Head, batch: MicroBatch, teacher: TeacherOutputs, scratch: Scratch
) -> FusedLoss:
    """-> sums over the tokens and the gradient of the summed loss; a trained head's gradient is added to its own."""
    if objective.policy is None:
        cuts = _cuts(teacher, hidden_MD, head.vocabulary, scratch.logit_bytes)
        return fused_loss(objective, hidden_MD, head, batch.labels_M, teacher, scratch, cuts)
    assert isinstance(teacher, TeacherLogits)  # no teacher was asked before about what the student has just written
    answers = Answers(batch.labels_M, batch.num_loss)
    return policy_gradient_loss(objective.policy, hidden_MD, head, answers, teacher, scratch)


def _cuts(
    teacher: TeacherOutputs, hidden_MD: Tensor, vocabulary: int, logit_bytes: int | None
) -> Iterator[slice] | None:
    """-> the chunks in which tokens stay together that a teacher speaks of together."""
    if isinstance(teacher, TeacherSpans | DualSpaceOutputs):
        return teacher.cuts(hidden_MD, vocabulary, logit_bytes)
    return None
