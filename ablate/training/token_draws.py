"""The next token, drawn from a distribution by numbers that are counted, not made one after another."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.study.answer_settings import Sampling
from ablate.training.prompts import Prompt

# B answers, N tokens of each, L numbers a token, V vocabulary, K leaves of its tree, R branches

LEVELS = 3
"""Numbers that decide a token."""
HEAD_SIZE = 512
"""So many of the likeliest tokens hold the nucleus, mostly; else all are sorted."""


class Draws(NamedTuple):
    """Which numbers decide: a function of these, the row, which of its answers, and the token's place in it."""

    seed: int
    step: int
    """0: before any training."""

    def uniforms(self, prompt: Prompt, num: int) -> NDArray[np.float64]:
        """-> those of the first `num` tokens of an answer (N x L), in [0, 1)."""
        text = f"ablate/{self.seed}/{self.step}/{prompt.row}/{prompt.number}"
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint64)
        raw_N: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(num * LEVELS)
        return ((raw_N >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(num, LEVELS)


def next_tokens(logits: Sequence[Tensor], sampling: Sampling, uniforms_BL: Tensor) -> Tensor:
    """-> B tokens. `logits`: the model's, B x V, in float32 or wider, used up; or the teacher's and the student's.

    Of two models a token is drawn from mix p + (1 - mix) q, each divided by the temperature before; top_k and then
    top_p are those of the mixture. Temperature 0: the likeliest token, of several the one of the lowest id.
    """
    if sampling.temperature == 0 and len(logits) == 1:
        return logits[0].argmax(1)
    weights_BV = _weights(logits, sampling)
    if sampling.temperature == 0:
        return weights_BV.argmax(1)
    if 0 < sampling.top_k < weights_BV.shape[1]:
        weights_BV = _of_the_likeliest(weights_BV, sampling.top_k)
    if sampling.top_p < 1:
        weights_BV = _of_the_nucleus(weights_BV, sampling.top_p)
    return drawn(weights_BV, uniforms_BL)


def _weights(logits: Sequence[Tensor], sampling: Sampling) -> Tensor:
    """-> B x V: probabilities, but for a factor."""
    weights = [_exp(logits_BV, sampling.temperature or 1.0) for logits_BV in logits]
    if len(weights) == 1:
        return weights[0]
    teacher_BV, student_BV = (of_one.div_(of_one.sum(1, keepdim=True)) for of_one in weights)
    return teacher_BV.mul_(sampling.mix).add_(student_BV, alpha=1 - sampling.mix)


def _exp(logits_BV: Tensor, temperature: float) -> Tensor:
    if temperature != 1:
        logits_BV = logits_BV.div_(temperature)
    return logits_BV.sub_(logits_BV.amax(1, keepdim=True)).exp_()


def _of_the_likeliest(weights_BV: Tensor, top_k: int) -> Tensor:
    """Those that are as likely as the last of so many stay too."""
    least_B1 = weights_BV.topk(top_k, dim=1).values[:, -1:]
    return torch.where(weights_BV < least_B1, 0.0, weights_BV)


def _of_the_nucleus(weights_BV: Tensor, top_p: float) -> Tensor:
    """A token stays where those likelier than it have less than `top_p` of the whole (so the likeliest always does)."""
    needed_B1 = top_p * weights_BV.sum(1, keepdim=True, dtype=torch.float64)
    falling_BN, ids_BN = weights_BV.topk(min(HEAD_SIZE, weights_BV.shape[1]), dim=1)
    if bool((falling_BN.sum(1, keepdim=True, dtype=torch.float64) < needed_B1).any()):
        falling_BN, ids_BN = weights_BV.sort(dim=1, descending=True, stable=True)
    wide_BN = falling_BN.double()
    before_BN = wide_BN.cumsum(1) - wide_BN
    kept_BN = torch.where(before_BN < needed_B1, falling_BN, 0.0)
    return torch.zeros_like(weights_BV).scatter_(1, ids_BN, kept_BN)


def drawn(weights_BV: Tensor, uniforms_BL: Tensor) -> Tensor:
    """-> B tokens, by their weights.

    The vocabulary is a tree of three levels with as many branches at each: a number each chooses a branch, the first
    whose sum with those before it is more than u times the sum of all. So rounding in one weight moves the borders of
    its own branch alone, and those of the branches around it, not those of half the vocabulary.
    """
    num_branches = _branches(weights_BV.shape[1])
    leaves_BK = _sums(weights_BV, num_branches)
    top_BR = _sums(leaves_BK, num_branches)
    top_B1 = _chosen(top_BR, uniforms_BL[:, :1])
    leaf_B1 = _within(leaves_BK, top_B1, num_branches, uniforms_BL[:, 1:2])
    return _within(weights_BV, leaf_B1, num_branches, uniforms_BL[:, 2:]).squeeze(1)


def _branches(vocabulary: int) -> int:
    """-> the least whole number whose cube is no smaller."""
    return next(num for num in itertools.count(1) if num**LEVELS >= vocabulary)


def _sums(weights_BN: Tensor, num_branches: int) -> Tensor:
    """-> of each so many that stand together, in float64."""
    whole = weights_BN.shape[1] // num_branches * num_branches
    sums = [weights_BN[:, :whole].view(len(weights_BN), -1, num_branches).sum(2, dtype=torch.float64)]
    if whole < weights_BN.shape[1]:
        sums.append(weights_BN[:, whole:].sum(1, keepdim=True, dtype=torch.float64))
    return torch.cat(sums, 1)


def _within(weights_BN: Tensor, branch_B1: Tensor, num_branches: int, uniform_B1: Tensor) -> Tensor:
    """-> one of the `weights_BN` in a branch."""
    places_BR = branch_B1 * num_branches + torch.arange(num_branches, device=weights_BN.device)
    is_there_BR = places_BR < weights_BN.shape[1]
    of_branch_BR = weights_BN.gather(1, places_BR.clamp(max=weights_BN.shape[1] - 1)).double().mul_(is_there_BR)
    return branch_B1 * num_branches + _chosen(of_branch_BR, uniform_B1)


def _chosen(weights_BR: Tensor, uniform_B1: Tensor) -> Tensor:
    sums_BR = weights_BR.cumsum(1)
    whole_B1 = sums_BR[:, -1:]
    almost_B1 = torch.nextafter(whole_B1, torch.zeros_like(whole_B1))  # what rounds to the whole is the last one's
    return (sums_BR <= torch.minimum(uniform_B1 * whole_B1, almost_B1)).sum(1, keepdim=True)
