"""Answers are what the model says: as if each were written alone, and as transformers itself would write it."""

import pytest
import torch
from support import tiny_models

from ablate.study.answer_settings import Sampling
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.prompts import Prompt
from ablate.training.token_draws import Draws

GEMMA3 = tiny_models.SMALL | {
    "head_dim": 12,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
}
FURTHER = {
    "gemma3": ("Gemma3TextConfig", GEMMA3),
    "gemma2_sliding": ("Gemma2Config", GEMMA3 | {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0}),
    "mistral": ("MistralConfig", tiny_models.SMALL | {"sliding_window": 5}),
}
ENDS = frozenset(range(8))


@pytest.fixture(autouse=True)
def _further_families(monkeypatch):
    monkeypatch.setattr(tiny_models, "FAMILIES", tiny_models.FAMILIES | FURTHER)


def _parts(family: str, dtype: torch.dtype = torch.float64) -> ModelParts:
    return split_model(tiny_models.make(family, dtype=dtype).requires_grad_(False), tiny_models.VOCABULARY)


def _prompts(lengths: list[int]) -> list[Prompt]:
    rows = tiny_models.random_rows(lengths, seed=3)
    return [Prompt(row, 0, tuple(rows.row(row)[0].tolist())) for row in range(len(lengths))]


LENGTHS = [3, 11, 7, 7, 1, 14, 20]


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, *FURTHER])
def test_answers_written_together_are_those_written_alone(family):
    writer, prompts = Writer(_parts(family), ENDS), _prompts(LENGTHS)
    sampling, draws = Sampling(max_new_tokens=12), Draws(1, 5)
    together = write_answers(writer, prompts, sampling, draws)
    assert writer.are_caches_exact == (True,)
    assert together == [write_answers(writer, [prompt], sampling, draws)[0] for prompt in prompts]
    assert all(answer.ended == (answer.ids[-1] in ENDS) for answer in together)


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, *FURTHER])
def test_the_likeliest_tokens_are_those_that_transformers_generates(family):
    parts, prompts = _parts(family), _prompts(LENGTHS)
    written = write_answers(Writer(parts, ENDS), prompts, Sampling(temperature=0, max_new_tokens=12), Draws(1, 5))
    assert [answer.ids for answer in written] == [_generated(parts, prompt, 12) for prompt in prompts]


def _generated(parts: ModelParts, prompt: Prompt, num: int) -> tuple[int, ...]:
    """-> transformers' own, its rows beyond the tokenizer left out."""
    beyond = list(range(parts.head.vocabulary, parts.model.config.vocab_size))
    ids = torch.tensor([prompt.ids])
    settings = {"do_sample": False, "max_new_tokens": num, "eos_token_id": sorted(ENDS), "suppress_tokens": beyond}
    generated = parts.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)
    return tuple(generated[0, len(prompt.ids) :].tolist())
