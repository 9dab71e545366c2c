"""The reverse KL of whole answers, lowered by the gradient of a policy whose reward is the teacher's: MiniLLM, opd."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ablate.study.policy import Policy
from ablate.training.batches import to_device
from ablate.training.head import Head
from ablate.training.loss import FusedLoss, LossSums, Scratch, StudentChunk, chunks
from ablate.training.own_tokens import OwnTokens

# M tokens of sampled answers, C of them in one chunk, D hidden width, V vocabulary; B answers, L tokens of the longest
# p the teacher's distribution, q the student's, m = mix p + (1 - mix) q the one that was sampled from, y what was


@runtime_checkable
class TeacherLogits(Protocol):
    """A teacher's outputs of which its whole distribution can be made."""

    @property
    def own(self) -> OwnTokens | None:
        """What is recorded of these tokens."""

    def logits(self, tokens: slice, scratch: Scratch) -> Tensor:
        """-> C x V, in float32 or wider; the scratch's memory of that name may hold them."""


class Answers(NamedTuple):
    """Which tokens were sampled."""

    labels_M: Tensor
    nums_B: tuple[int, ...]
    """Tokens of each answer, which stand together, in their order."""


class _Models(NamedTuple):
    """Student and teacher at the tokens of some answers."""

    hidden_MD: Tensor
    head: Head
    labels_M: Tensor
    teacher: TeacherLogits
    scratch: Scratch

    def student(self, tokens: slice) -> StudentChunk:
        hidden_CD = self.hidden_MD[tokens]
        logits_CV = self.head.logits(hidden_CD, self.scratch("student", hidden_CD, self.head.vocabulary))
        return StudentChunk(tokens, hidden_CD, logits_CV, self.labels_M[tokens], self.head)


class _LogProbabilities(NamedTuple):
    """Of the sampled tokens, in float64: rewards are differences, and sums of many."""

    q_M: Tensor
    p_M: Tensor


class _Credit(NamedTuple):
    """What the gradient at each token is multiplied with, in float64."""

    weight_M: Tensor
    """Of the token, as if it had been sampled from q: 1, at most `clip`, or of the answer as a whole."""
    reward_M: Tensor
    """What log q(y) is to be raised by: what counts of the rewards of the token and of those after it."""


@torch.no_grad()
def policy_gradient_loss(
    policy: Policy, hidden_MD: Tensor, head: Head, answers: Answers, teacher: TeacherLogits, scratch: Scratch
) -> FusedLoss:
    """-> the estimate of the gradient of KL(q || p) of the answers, summed; a trained head's is added to its own.

    With r_t = log p(y_t) - log q(y_t), and of the tokens after it R_t = sum_(k > 0) discount^k r_(t+k) [/ their
    number], it is the sum over tokens of w_t (grad KL(q || p)_t - R_t grad log q(y_t)); where a token's own reward is
    that of what was sampled, - r_t grad log q(y_t) stands for grad KL (Gu et al. 2023, 2306.08543, section 2.2).

    The KL in the sums is KL(q || p) at each token over the whole vocabulary, of the answers as they are, unweighted:
    the surrogate whose gradient this is has no value to compare.

    A token's own reward asks nothing of other tokens, so that one pass through the head is enough; else the rewards
    are found in a pass of their own.
    """
    models = _Models(hidden_MD, head, answers.labels_M, teacher, scratch)
    credit = _credit(policy, _log_probabilities(models), answers.nums_B) if policy.needs_whole_answers else None
    grad_MD, sums = torch.empty_like(hidden_MD), LossSums.zero(str(hidden_MD.device))
    with head.summing_grad():
        for tokens in chunks(hidden_MD, head.vocabulary, scratch.logit_bytes):
            student = models.student(tokens)
            known = _Credit(*(part_M[tokens] for part_M in credit)) if credit else None
            teacher_CV = teacher.logits(tokens, scratch)
            if teacher.own:
                teacher.own.add(tokens, student.logits_CV, teacher_CV, student.labels_C)
            grad_CV, chunk_sums = _chunk(policy, student, teacher_CV, known)
            grad_MD[tokens] = student.backward(grad_CV)
            sums += chunk_sums
    return FusedLoss(grad_MD, sums)


class _ChunkGrad(NamedTuple):
    grad_CV: Tensor
    sums: LossSums


def _chunk(policy: Policy, student: StudentChunk, teacher_CV: Tensor, credit: _Credit | None) -> _ChunkGrad:
    """-> the gradient in the student's logits z: w (q (log q/p - KL) - R (onehot(y) - q)).

    That of KL(q || p) is q (log q/p - KL), that of log q(y) is onehot(y) - q.
    """
    logq_CV, logp_CV = student.logits_CV.log_softmax(1), teacher_CV.log_softmax(1)
    at_labels = _LogProbabilities(_at(logq_CV, student.labels_C), _at(logp_CV, student.labels_C))
    weight_C, reward_C = credit or _own_credit(policy, at_labels)
    p_CV = logp_CV.exp()
    entropy_C = -torch.linalg.vecdot(p_CV, logp_CV)
    q_CV, ratio_CV = torch.exp(logq_CV, out=p_CV), logq_CV.sub_(logp_CV)
    kl_C = torch.linalg.vecdot(q_CV, ratio_CV)
    slope_C = (reward_C - kl_C) if policy.is_exact else reward_C
    factor_CV = ratio_CV if policy.is_exact else ratio_CV.zero_()
    grad_CV = factor_CV.add_(slope_C.to(q_CV.dtype)[:, None]).mul_(q_CV)
    grad_CV[torch.arange(len(reward_C), device=grad_CV.device), student.labels_C] -= reward_C.to(q_CV.dtype)
    return _ChunkGrad(grad_CV.mul_(weight_C.to(q_CV.dtype)[:, None]), LossSums.over(-at_labels.q_M, kl_C, entropy_C))


def _log_probabilities(models: _Models) -> _LogProbabilities:
    """-> those of all sampled tokens: a pass through both heads."""
    parts = []
    for tokens in chunks(models.hidden_MD, models.head.vocabulary, models.scratch.logit_bytes):
        labels_C = models.labels_M[tokens]
        logq_C = _at(models.student(tokens).logits_CV.log_softmax(1), labels_C)
        parts.append((logq_C, _at(models.teacher.logits(tokens, models.scratch).log_softmax(1), labels_C)))
    q_parts, p_parts = zip(*parts, strict=True)
    return _LogProbabilities(torch.cat(q_parts), torch.cat(p_parts))


def _at(log_CV: Tensor, labels_C: Tensor) -> Tensor:
    return log_CV.gather(1, labels_C[:, None]).squeeze(1).double()


def _own_credit(policy: Policy, known: _LogProbabilities) -> _Credit:
    """-> what a token is given for itself alone."""
    reward_M = known.p_M - known.q_M
    log_weight_M = _log_weight(policy, known)
    weight_M = log_weight_M.exp() if policy.clip is None else log_weight_M.exp().clamp(max=policy.clip)
    return _Credit(weight_M, torch.zeros_like(reward_M) if policy.is_exact else reward_M)


def _log_weight(policy: Policy, known: _LogProbabilities) -> Tensor:
    """-> log q(y) / m(y); 0 where the student alone was sampled from."""
    if not policy.mix:
        return torch.zeros_like(known.q_M)
    share = torch.tensor(policy.mix, dtype=torch.float64, device=known.q_M.device)
    return known.q_M - torch.logaddexp(share.log() + known.p_M, (-share).log1p() + known.q_M)


def _credit(policy: Policy, known: _LogProbabilities, nums_B: Sequence[int]) -> _Credit:
    """-> what a token is given for itself and for the tokens after it in its answer."""
    own = _own_credit(policy, known)
    places = _Places.in_rows(nums_B, known.q_M.device)
    later_M = places.later(known.p_M - known.q_M, policy.discount, policy.normalize_length)
    if policy.clip is not None:
        return _Credit(own.weight_M, own.reward_M + later_M)
    total_B = places.laid_out(_log_weight(policy, known)).sum(1)
    return _Credit(total_B.exp()[places.row_M], own.reward_M + later_M)


class _Places(NamedTuple):
    """Where the tokens are in their answers."""

    row_M: Tensor
    """0 the first answer."""
    place_M: Tensor
    """0 the first token of an answer."""
    left_M: Tensor
    """Tokens after it in its answer."""
    shape: tuple[int, int]
    """B x L."""

    @classmethod
    def in_rows(cls, nums_B: Sequence[int], device: torch.device) -> "_Places":
        """Made on the CPU, so that a card is asked for nothing."""
        nums = np.array(nums_B)
        row_M = np.repeat(np.arange(len(nums)), nums)
        place_M = np.arange(len(row_M)) - (nums.cumsum() - nums)[row_M]
        tensors = map(torch.from_numpy, (row_M, place_M, nums[row_M] - 1 - place_M))
        row, place, left = (to_device(x_M, device) for x_M in tensors)
        return cls(row, place, left, (len(nums), int(nums.max())))

    def laid_out(self, values_M: Tensor) -> Tensor:
        """-> B x L, 0 after an answer's end."""
        laid_BL = values_M.new_zeros(self.shape)
        laid_BL[self.row_M, self.place_M] = values_M
        return laid_BL

    def later(self, rewards_M: Tensor, discount: float, is_mean: bool) -> Tensor:
        """-> the discounted sum of the rewards after each token, the next one's discounted once."""
        rewards_BL = self.laid_out(rewards_M)
        later_BL, sum_B = torch.zeros_like(rewards_BL), rewards_BL.new_zeros(len(rewards_BL))
        for place in range(rewards_BL.shape[1] - 2, -1, -1):
            sum_B = discount * (rewards_BL[:, place + 1] + sum_B)
            later_BL[:, place] = sum_B
        later_M = later_BL[self.row_M, self.place_M]
        return later_M / self.left_M.clamp(min=1) if is_mean else later_M
