"""Answers written one by one by plain transformers, a full forward pass a token: what the engine's must equal."""

import torch

from ablate.training.prompts import Answer, Prompt
from ablate.training.token_draws import Draws


@torch.no_grad()
def write(prompt: Prompt, models, sampling, draws: Draws, ends, vocabulary: int) -> Answer:
    """`models`: the student, or the teacher and the student of a mixture; their logits beyond the tokenizer's do not
    count."""
    uniforms = draws.uniforms(prompt, sampling.max_new_tokens)
    ids: list[int] = []
    for uniform in uniforms:
        given = torch.tensor([[*prompt.ids, *ids]])
        logits = [model(input_ids=given).logits[0, -1, :vocabulary].double() for model in models]
        probabilities = [(one / (sampling.temperature or 1.0)).softmax(0) for one in logits]
        shares = (sampling.mix, 1 - sampling.mix) if len(models) == 2 else (1.0,)
        mixture = sum(share * one for share, one in zip(shares, probabilities, strict=True))
        if sampling.temperature == 0:
            ids.append(int(mixture.argmax()))
        else:
            below = mixture.cumsum(0)
            ids.append(int((below <= float(uniform) * below[-1]).sum()))
        if ids[-1] in ends:
            return Answer(prompt, tuple(ids), True)
    return Answer(prompt, tuple(ids), False)
