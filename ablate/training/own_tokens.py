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


class _RowLogProbs(NamedTuple):
    """log p[y] and log q[y] of the tokens of some rows, one row after the other."""

    rows: tuple[int, ...]
    nums: list[int]
    of_both_2M: Tensor


@dataclass
class OwnSums:
    """Summed over all tokens of a step that the student wrote, where they were computed; read once, at its end."""

    totals_4: Tensor
    """KD, the teacher's entropy, the reverse KL, the student's entropy."""
    num_tokens: int = 0
    by_row: list[_RowLogProbs] = field(default_factory=list)

    @classmethod
    def zero(cls, device: str | torch.device) -> "OwnSums":
        return cls(torch.zeros(4, dtype=torch.float64, device=device))

    def with_other(self, other: "OwnSums") -> "OwnSums":
        """-> the sums over the tokens of both."""
        totals_4, num_tokens = self.totals_4 + other.totals_4, self.num_tokens + other.num_tokens
        return OwnSums(totals_4, num_tokens, [*self.by_row, *other.by_row])

    def add(self, rows: TokenRows, chosen: Sequence[int], tokens: OwnTokens, loss: LossSums) -> None:
        """Adds a micro-batch: the tokens of the rows `chosen`, one row after the other."""
        nums = [int(num) for num in rows.num_loss[list(chosen)]]
        self.num_tokens += sum(nums)
        self.totals_4 += torch.stack((loss.kd_loss, loss.teacher_entropy, tokens.reverse_kl, tokens.entropy))
        self.by_row.append(_RowLogProbs(tuple(chosen), nums, torch.stack((tokens.teacher_M, tokens.student_M))))

    @property
    def tensors(self) -> list[Tensor]:
        """-> all that was computed."""
        return [self.totals_4, *(part.of_both_2M for part in self.by_row)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "OwnSums":
        """-> the same, in other memory."""
        totals_4, *parts = tensors
        by_row = [known._replace(of_both_2M=part) for known, part in zip(self.by_row, parts, strict=True)]
        return OwnSums(totals_4, self.num_tokens, by_row)

    @property
    def kd_loss(self) -> float:
        return float(self.totals_4[0])

    @property
    def teacher_entropy(self) -> float:
        return float(self.totals_4[1])

    @property
    def reverse_kl(self) -> float:
        return float(self.totals_4[2])

    @property
    def entropy(self) -> float:
        return float(self.totals_4[3])

    @property
    def log_probs(self) -> dict[int, LogProbs]:
        """-> by row of the step."""
        return {
            row: LogProbs(*of_row_2M.mean(1).tolist())
            for part in self.by_row
            for row, of_row_2M in zip(part.rows, torch.split(part.of_both_2M, part.nums, 1), strict=True)
        }
