"""Answers written one by one by plain transformers, a full forward pass a token: what the engine's must equal."""

import math

import torch

from ablate.training.prompts import Answer, Prompt
from ablate.training.token_draws import Draws


@torch.no_grad()
def write(prompt: Prompt, models, sampling, draws: Draws, ends, vocabulary: int) -> Answer:
    """`models`: the student, or the teacher and the student of a mixture; their logits beyond the tokenizer's do not
    count."""
    uniforms = draws.uniforms(prompt, sampling.max_new_tokens)
    ids: list[int] = []
    for numbers in uniforms:
        given = torch.tensor([[*prompt.ids, *ids]])
        logits = [model(input_ids=given).logits[0, -1, :vocabulary].double() for model in models]
        probabilities = [(one / (sampling.temperature or 1.0)).softmax(0) for one in logits]
        shares = (sampling.mix, 1 - sampling.mix) if len(models) == 2 else (1.0,)
        mixture = sum(share * one for share, one in zip(shares, probabilities, strict=True))
        if sampling.temperature == 0:
            ids.append(int(mixture.argmax()))
        else:
            ids.append(draw(mixture.tolist(), numbers.tolist()))
        if ids[-1] in ends:
            return Answer(prompt, tuple(ids), True)
    return Answer(prompt, tuple(ids), False)


def draw(weights: list[float], numbers: list[float]) -> int:
    """-> one of the places of the weights: a number each narrows them down to a third root of what is left."""
    branches = next(num for num in range(1, len(weights) + 1) if num**3 >= len(weights))
    begin, width = 0, branches**3
    for number in numbers:
        width //= branches
        sums = [math.fsum(weights[begin + n * width : begin + (n + 1) * width]) for n in range(branches)]
        target = number * math.fsum(sums)
        chosen = next(n for n in range(branches) if math.fsum(sums[: n + 1]) > target)
        begin += chosen * width
    return begin
