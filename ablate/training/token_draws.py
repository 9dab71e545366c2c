"""The next token, drawn from a distribution by numbers that are counted, not made one after another."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.study.answer_settings import Sampling
from ablate.training.prompts import Prompt

# B answers, N tokens of each, V vocabulary, K blocks of it

BLOCK = 256
HEAD_SIZE = 512
"""So many of the likeliest tokens hold the nucleus, mostly; else all are sorted."""


class Draws(NamedTuple):
    """Which numbers decide: a function of these, the row, which of its answers, and the token's place in it."""

    seed: int
    step: int
    """0: before any training."""

    def uniforms(self, prompt: Prompt, num: int) -> NDArray[np.float64]:
        """-> those of the first `num` tokens of an answer, in [0, 1)."""
        text = f"ablate/{self.seed}/{self.step}/{prompt.row}/{prompt.number}"
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint64)
        raw_N: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(num)
        return (raw_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def next_tokens(logits: Sequence[Tensor], sampling: Sampling, uniforms_B: Tensor) -> Tensor:
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
    return drawn(weights_BV, uniforms_B)


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


def drawn(weights_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """-> B tokens: the first whose sum of weights, with those of lower ids, is more than u times the whole.

    Summed in float64, first whole blocks of the vocabulary, then the tokens of one.
    """
    sums_BK = _block_sums(weights_BV).cumsum_(1)
    target_B1 = _less_than(uniforms_B.unsqueeze(1) * sums_BK[:, -1:], sums_BK[:, -1:])
    block_B1 = (sums_BK <= target_B1).sum(1, keepdim=True)
    before_B1 = torch.where(block_B1 > 0, sums_BK.gather(1, (block_B1 - 1).clamp_(min=0)), 0.0)
    ids_BN = block_B1 * BLOCK + torch.arange(BLOCK, device=weights_BV.device)
    is_token_BN = ids_BN < weights_BV.shape[1]
    in_block_BN = weights_BV.gather(1, ids_BN.clamp_(max=weights_BV.shape[1] - 1)).double().mul_(is_token_BN)
    sums_BN = in_block_BN.cumsum_(1)
    rest_B1 = _less_than(target_B1 - before_B1, sums_BN[:, -1:])
    return (block_B1 * BLOCK + (sums_BN <= rest_B1).sum(1, keepdim=True)).squeeze(1)


def _block_sums(weights_BV: Tensor) -> Tensor:
    num, whole = len(weights_BV), weights_BV.shape[1] // BLOCK * BLOCK
    sums_BK = weights_BV[:, :whole].view(num, -1, BLOCK).sum(2, dtype=torch.float64) if whole else None
    if whole == weights_BV.shape[1]:
        return sums_BK  # type: ignore[return-value]
    rest_B1 = weights_BV[:, whole:].sum(1, keepdim=True, dtype=torch.float64)
    return rest_B1.view(num, 1) if sums_BK is None else torch.cat([sums_BK, rest_B1], 1)


def _less_than(x: Tensor, most: Tensor) -> Tensor:
    """Rounding does not let the last token's share end before the last number."""
    return torch.minimum(x, torch.nextafter(most, torch.zeros_like(most)))
