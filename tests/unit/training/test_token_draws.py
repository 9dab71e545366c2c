"""Tokens are drawn from the distribution that is asked for, by numbers that depend on nothing but their place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare, kstest
from support import slow_writer
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ablate.study.answer_settings import Sampling
from ablate.training.prompts import Prompt
from ablate.training.token_draws import Draws, drawn, next_tokens

NUM = 100_000
GOLDEN = [0.6660890147487264, 0.6991682907356177, 0.3031237701443519]
"""Another first number writes everybody's answers anew."""


def logits_of(num: int, vocabulary: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(num, vocabulary, generator=torch.Generator().manual_seed(seed))


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """-> the probabilities that transformers samples from."""
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    for warper in warpers:
        logits = warper(None, logits)
    return logits.softmax(1)


def uniforms(num: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(top_k=7),
    Sampling(top_p=0.8),
    Sampling(temperature=1.7, top_k=20, top_p=0.9),
]


@pytest.mark.parametrize("sampling", [SETTINGS[0], SETTINGS[-1]], ids=str)
def test_a_hundred_thousand_draws_are_distributed_as_transformers_would_draw_them(sampling):
    logits = logits_of(1, 60)
    expected = warped(logits, sampling)[0].double()
    tokens = [next_tokens([logits.expand(NUM // 50, -1).clone()], sampling, part) for part in uniforms(NUM).chunk(50)]
    counts = torch.cat(tokens).bincount(minlength=60).double()
    assert bool((counts[expected == 0] == 0).all())
    is_common = expected * NUM >= 5
    merged = [torch.cat([values[is_common], values[~is_common].sum()[None]]) for values in (counts, expected * NUM)]
    pooled = [values[merged[1] > 0] for values in merged]
    assert chisquare(pooled[0], pooled[1] * (pooled[0].sum() / pooled[1].sum())).pvalue > 1e-4


@pytest.mark.parametrize("sampling", SETTINGS[2:], ids=str)
@pytest.mark.parametrize("vocabulary", [50, 1500])
@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_the_tokens_that_can_be_drawn_are_those_that_transformers_leaves(sampling, vocabulary, scale):
    logits = logits_of(10, vocabulary, scale=scale)
    possible = warped(logits, sampling) > 0
    drawn_B = [next_tokens([logits.clone()], sampling, uniforms(10, seed)) for seed in range(40)]
    assert all(bool(possible.gather(1, tokens[:, None]).all()) for tokens in drawn_B)
    ends = [
        next_tokens([logits.clone()], sampling, torch.full((10, 3), u, dtype=torch.float64)) for u in (0.0, 1 - 2**-53)
    ]
    first, last = possible.int().argmax(1), vocabulary - 1 - possible.flip(1).int().argmax(1)
    assert torch.equal(ends[0], first)
    assert torch.equal(ends[1], last)


def test_tokens_as_likely_as_the_last_of_the_top_k_stay():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    tokens = set(next_tokens([logits.expand(200, -1).clone()], Sampling(top_k=2), uniforms(200)).tolist())
    assert tokens == {1, 2, 3}


def test_the_likeliest_of_several_is_the_one_of_the_lowest_id():
    logits = torch.tensor([[0.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    assert next_tokens([logits], Sampling(temperature=0), uniforms(2)).tolist() == [1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1200), st.integers(0, 2**31), st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_a_token_is_the_one_that_each_number_narrows_down_to(vocabulary, seed, numbers):
    weights = logits_of(2, vocabulary, seed).exp()
    weights[:, torch.rand(vocabulary, generator=torch.Generator().manual_seed(1)) < 0.3] = 0
    weights[:, -1] += 1e-3
    tokens = drawn(weights, torch.tensor([numbers] * 2, dtype=torch.float64)).tolist()
    assert tokens == [slow_writer.draw(of_one.tolist(), numbers) for of_one in weights]


def test_rounding_in_the_logits_hardly_ever_changes_a_token():
    """Of one number and one sum over the vocabulary, one token in 500 would be another."""
    logits, vocabulary = 2 * logits_of(1000, 4000, scale=1.0).double(), 4000
    logits.scatter_add_(1, torch.randint(vocabulary, (1000, 8)), 9 + 4 * torch.rand(1000, 8).double())
    noisy = logits + 1e-6 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    num_changed = 0
    for seed in range(5):
        numbers = uniforms(1000, seed)
        num_changed += int((drawn(logits.softmax(1), numbers) != drawn(noisy.softmax(1), numbers)).sum())
    assert num_changed <= 3


def test_a_mixture_is_drawn_from_both_models():
    teacher, student, sampling = logits_of(1, 20, 1), logits_of(1, 20, 2), Sampling(mix=0.2, temperature=0.8)
    expected = 0.2 * (teacher / 0.8).double().softmax(1) + 0.8 * (student / 0.8).double().softmax(1)
    given = [one.expand(NUM, -1).clone() for one in (teacher, student)]
    counts = next_tokens(given, sampling, uniforms(NUM)).bincount(minlength=20).double()
    statistic = float(((counts - expected[0] * NUM) ** 2 / (expected[0] * NUM)).sum())
    assert statistic < chi2.ppf(1 - 1e-4, 19)


def test_numbers_depend_on_seed_step_row_and_answer_and_on_the_tokens_place():
    draws, prompt = Draws(3, 7), Prompt(11, 0, (1, 2))
    numbers = draws.uniforms(prompt, 20)
    assert numbers.shape == (20, 3)
    assert numbers.tolist() == draws.uniforms(prompt._replace(ids=(5,)), 30)[:20].tolist()
    others = [
        Draws(4, 7).uniforms(prompt, 20),
        Draws(3, 8).uniforms(prompt, 20),
        draws.uniforms(prompt._replace(row=12), 20),
        draws.uniforms(prompt._replace(number=1), 20),
    ]
    assert len({tuple(other.ravel()) for other in [numbers, *others]}) == 5
    assert numbers[0].tolist() == pytest.approx(GOLDEN, abs=0)


def test_numbers_of_all_steps_and_rows_together_are_uniform_and_independent():
    table = np.stack(
        [Draws(0, step).uniforms(Prompt(row, 0, ()), 3).ravel() for step in range(25) for row in range(50)]
    )
    assert kstest(table.ravel(), "uniform").pvalue > 1e-4
    correlations = np.corrcoef(table.T)[np.triu_indices(9, 1)]
    assert float(np.abs(correlations).max()) < 5 / np.sqrt(len(table))
