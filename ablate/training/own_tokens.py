"""What is recorded of the tokens that a student wrote, from the logits that their loss is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.data.tokens import TokenRows
from ablate.training.loss import LossSums

# M loss-bearing tokens of a micro-batch, C of them in one chunk, V vocabulary
# p the teacher's distribution, q the student's, y the token


class LogProbs(NamedTuple):
    """Of an answer, means over its tokens, in nats."""

    teacher: float
    student: float


class OwnTokens:
    """The tokens of one micro-batch, chunk after chunk, at temperature 1 whatever the loss is at."""

    def __init__(self, num_tokens: int, device: torch.device) -> None:
        self.reverse_kl, self.entropy = torch.zeros(2, dtype=torch.float64, device=device)
        self.teacher_M, self.student_M = torch.zeros(2, num_tokens, dtype=torch.float64, device=device)

    def add(self, tokens: slice, student_CV: Tensor, teacher_CV: Tensor, labels_C: Tensor) -> None:
        """KL(q || p) = sum_v q (log q - log p) and H(q) = -sum_v q log q, summed; log p[y], log q[y] of each token."""
        logq_CV, logp_CV = student_CV.log_softmax(1), teacher_CV.log_softmax(1)
        self.teacher_M[tokens] = logp_CV.gather(1, labels_C[:, None]).squeeze(1).double()
        self.student_M[tokens] = logq_CV.gather(1, labels_C[:, None]).squeeze(1).double()
        q_CV = logq_CV.exp()
        self.entropy -= torch.linalg.vecdot(q_CV, logq_CV).sum(dtype=torch.float64)
        self.reverse_kl += torch.linalg.vecdot(q_CV, logq_CV.sub_(logp_CV)).sum(dtype=torch.float64)


@dataclass
class OwnSums:
    """Summed over all tokens of a step that the student wrote."""

    num_tokens: int = 0
    kd_loss: float = 0.0
    teacher_entropy: float = 0.0
    reverse_kl: float = 0.0
    entropy: float = 0.0
    log_probs: dict[int, LogProbs] = field(default_factory=dict)
    """By row of the step."""

    def with_other(self, other: "OwnSums") -> "OwnSums":
        """-> the sums over the tokens of both."""
        mine, theirs = vars(self), vars(other)
        sums = {name: mine[name] + theirs[name] for name in mine if name != "log_probs"}
        return OwnSums(**sums, log_probs=self.log_probs | other.log_probs)

    def add(self, rows: TokenRows, chosen: Sequence[int], tokens: OwnTokens, loss: LossSums) -> None:
        """Adds a micro-batch: the tokens of the rows `chosen`, one row after the other."""
        nums = [int(num) for num in rows.num_loss[list(chosen)]]
        self.num_tokens += sum(nums)
        self.kd_loss += float(loss.kd_loss)
        self.teacher_entropy += float(loss.teacher_entropy)
        self.reverse_kl += float(tokens.reverse_kl)
        self.entropy += float(tokens.entropy)
        of_rows = zip(chosen, tokens.teacher_M.split(nums), tokens.student_M.split(nums), strict=True)
        self.log_probs |= {row: LogProbs(float(p.mean()), float(q.mean())) for row, p, q in of_rows}
