"""Students and teachers so small that every answer can be listed: five tokens, three places, all in float64."""

from typing import NamedTuple

import torch
from torch import Tensor

# S answers, L places, V vocabulary, P prefixes, M tokens of all answers

V, L = 5, 3
P = 1 + V + V**2
EOS = V - 1


class World(NamedTuple):
    """A logit for each token after each beginning of an answer."""

    student_PV: Tensor
    teacher_PV: Tensor


class Listed(NamedTuple):
    """Answers, token by token."""

    rows_M: Tensor
    prefixes_M: Tensor
    labels_M: Tensor

    @property
    def num_rows(self) -> int:
        return int(self.rows_M.max()) + 1

    def summed(self, values_M: Tensor) -> Tensor:
        """-> of each answer (S)."""
        return values_M.new_zeros(self.num_rows).index_add(0, self.rows_M, values_M)


def make_world(seed: int = 0, spread: float = 1.0) -> World:
    generator = torch.Generator().manual_seed(seed)
    return World(*(spread * torch.randn(P, V, generator=generator, dtype=torch.float64) for _ in range(2)))


def every_answer(*, ends: bool) -> Tensor:
    """-> all S x L; `ends`: those that stop at the first EOS, with -1 after it."""
    answers_SL = torch.cartesian_prod(*[torch.arange(V)] * L)
    return cut_at_eos(answers_SL).unique(dim=0) if ends else answers_SL


def cut_at_eos(answers_SL: Tensor) -> Tensor:
    is_eos_SL = answers_SL == EOS
    is_after_SL = is_eos_SL.long().cumsum(1) - is_eos_SL.long() > 0
    return answers_SL.masked_fill(is_after_SL, -1)


def listed(answers_SL: Tensor) -> Listed:
    begins_SL = torch.zeros_like(answers_SL)
    begins_SL[:, 1] = 1 + answers_SL[:, 0]
    begins_SL[:, 2] = 1 + V + V * answers_SL[:, 0] + answers_SL[:, 1]
    is_token_SL = answers_SL >= 0
    rows_SL = torch.arange(len(answers_SL))[:, None].expand_as(answers_SL)
    return Listed(rows_SL[is_token_SL], begins_SL[is_token_SL], answers_SL[is_token_SL])


def log_probabilities(log_PV: Tensor, answers: Listed) -> Tensor:
    """-> of each answer's tokens (M), under log-probabilities by prefix."""
    return log_PV[answers.prefixes_M, answers.labels_M]


def mixed(world: World, mix: float) -> Tensor:
    """-> log of mix p + (1 - mix) q (P x V)."""
    return (mix * world.teacher_PV.softmax(1) + (1 - mix) * world.student_PV.softmax(1)).log()


def gradient_of_kl(world: World, answers: Listed) -> Tensor:
    """-> of KL(q || p) over whole answers, every one of them summed (P x V)."""
    leaf_PV = world.student_PV.clone().requires_grad_()
    logq_S = answers.summed(log_probabilities(leaf_PV.log_softmax(1), answers))
    logp_S = answers.summed(log_probabilities(world.teacher_PV.log_softmax(1), answers))
    kl = (logq_S.exp() * (logq_S - logp_S)).sum()
    return torch.autograd.grad(kl, leaf_PV)[0]


def by_prefix(grad_MV: Tensor, answers: Listed, weights_S: Tensor) -> Tensor:
    """-> gradients at tokens, weighted by their answers and summed by prefix (P x V)."""
    zero_PV = grad_MV.new_zeros(P, V)
    return zero_PV.index_add(0, answers.prefixes_M, grad_MV * weights_S[answers.rows_M][:, None])
