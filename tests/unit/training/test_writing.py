"""Answers are what the model says: as if each were written alone, and as transformers itself would write it."""

import functools
from dataclasses import replace

import pytest
import torch
import transformers
from support import slow_writer, tiny_models

from ablate.core.errors import StageError
from ablate.data.masks import TokenRow
from ablate.data.tokens import lay
from ablate.study.answer_settings import Sampling
from ablate.study.training_recipes import Train
from ablate.training import adapters, decode_loop, trainable
from ablate.training.decode_loop import Writer, groups, write_answers
from ablate.training.head import Head
from ablate.training.model_parts import Body, ModelParts, split_model
from ablate.training.prompts import Answer, Prompt, end_tokens, prompt_ids
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


def _alone(writer: Writer, prompts: list[Prompt], sampling: Sampling, draws: Draws) -> list[Answer]:
    """-> by plain transformers, a full pass a token."""
    models = [parts.model for parts in writer.models]
    vocabulary = writer.model.head.vocabulary
    return [slow_writer.write(prompt, models, sampling, draws, writer.ends, vocabulary) for prompt in prompts]


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, *FURTHER])
def test_answers_are_those_of_a_full_pass_a_token(family):
    writer, prompts, sampling, draws = (
        Writer(_parts(family), ENDS),
        _prompts(LENGTHS),
        Sampling(max_new_tokens=8),
        Draws(2, 3),
    )
    assert write_answers(writer, prompts, sampling, draws) == _alone(writer, prompts, sampling, draws)


def test_a_prompt_with_several_answers_is_read_once(monkeypatch):
    writer, sampling, draws = Writer(_parts("gemma2"), ENDS), Sampling(max_new_tokens=8, num_answers=3), Draws(2, 3)
    prompts = [prompt._replace(number=number) for prompt in _prompts([9, 4, 6]) for number in range(3)]
    assert writer.are_caches_exact == (True,)
    widths, forward = [], writer.model.body.module.forward

    @functools.wraps(forward)
    def counting(**given):
        widths.append(tuple(given["input_ids"].shape))
        return forward(**given)

    monkeypatch.setattr(writer.model.body.module, "forward", counting)
    written = write_answers(writer, prompts, sampling, draws)
    assert widths[:2] == [(3, 9), (9, 1)]
    monkeypatch.undo()
    assert written == _alone(writer, prompts, sampling, draws)
    assert len({answer.ids for answer in written}) > 3


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_two_models_write_together(temperature):
    teacher = split_model(tiny_models.make("gpt2", 3, torch.float64).requires_grad_(False), tiny_models.VOCABULARY)
    writer, sampling, draws = (
        Writer(_parts("llama"), ENDS, teacher),
        Sampling(max_new_tokens=8, temperature=temperature),
        Draws(2, 3),
    )
    prompts = _prompts(LENGTHS)
    assert write_answers(writer, prompts, sampling, draws) == _alone(writer, prompts, sampling, draws)


def test_a_model_whose_body_and_head_cannot_be_run_apart_writes_too():
    parts = _parts("llama")
    writer, prompts = Writer(replace(parts, head=Head(None, tiny_models.VOCABULARY)), ENDS), _prompts([4, 4, 9])
    sampling, draws = Sampling(max_new_tokens=8), Draws(2, 3)
    assert writer.are_caches_exact == (True,)
    assert write_answers(writer, prompts, sampling, draws) == _alone(writer, prompts, sampling, draws)


class _Forgetful(torch.nn.Module):
    """A body that does not look at its cache: as a model whose state is none of keys and values."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, input_ids, position_ids=None, cache=None, attention_mask=None, use_cache=False):
        return self.module(input_ids=input_ids, position_ids=position_ids, use_cache=False)


def test_a_model_that_says_otherwise_with_a_cache_reads_the_whole_text_for_each_token(monkeypatch):
    parts, prompts, sampling, draws = _parts("llama"), _prompts(LENGTHS), Sampling(max_new_tokens=6), Draws(2, 3)
    expected = write_answers(Writer(parts, ENDS), prompts, sampling, draws)
    forgetful = replace(parts)
    forgetful.__dict__["body"] = Body(_Forgetful(parts.model.base_model), "last_hidden_state")
    writer = Writer(forgetful, ENDS)
    assert writer.are_caches_exact == (False,)
    assert write_answers(writer, prompts, sampling, draws) == expected


def test_a_model_without_attention_reads_the_whole_text_for_each_token(monkeypatch):
    mamba = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.3}
    monkeypatch.setitem(tiny_models.FAMILIES, "mamba", ("MambaConfig", mamba))
    writer, prompts = Writer(_parts("mamba"), ENDS), _prompts([3, 5])
    sampling, draws = Sampling(max_new_tokens=4), Draws(1, 5)
    assert write_answers(writer, prompts, sampling, draws) == _alone(writer, prompts, sampling, draws)
    assert writer.are_caches_exact == (False,)


def test_what_is_trained_of_a_model_writes_as_it_computes_without_dropout_and_goes_on_as_it_was():
    recipe = Train.model_validate(
        {
            "lora": {"rank": 2, "alpha": 8.0, "dropout": 0.5, "target_modules": ["q_proj", "down_proj"]},
            "gradient_checkpointing": True,
        }
    )
    model = tiny_models.make("llama", dtype=torch.float64).requires_grad_(False)
    weights = trainable.make_trainable(model, recipe, 0, adapters.Origin())
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    weights.seed_dropout(0, 1, [0], [1])
    before = {name: module.training for name, module in model.named_modules()}
    writer, prompts, draws = Writer(split_model(model, tiny_models.VOCABULARY), ENDS), _prompts(LENGTHS), Draws(2, 3)
    written = write_answers(writer, prompts, Sampling(max_new_tokens=8), draws)
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()
    assert written == _alone(writer, prompts, Sampling(max_new_tokens=8), draws)


def test_groups_follow_from_the_prompts_and_go_on_where_some_are_done():
    writer, sampling = Writer(_parts("llama"), ENDS), Sampling(max_new_tokens=4)
    prompts = _prompts([3 + 7 * row % 11 for row in range(150)])
    parted = list(groups(writer, prompts, sampling))
    assert [len(group) for group in parted] == [64, 64, 22]
    assert sorted(prompt for group in parted for prompt in group) == sorted(prompts)
    lengths = [len(prompt.ids) for group in parted for prompt in group]
    assert lengths == sorted(lengths, reverse=True)
    missing = [prompt for prompt in prompts if prompt not in parted[0]]
    assert list(groups(writer, missing[::-1], sampling)) == parted[1:]


def test_out_of_memory_a_group_is_written_in_halves(monkeypatch):
    writer, prompts, sampling, draws = (
        Writer(_parts("llama"), ENDS),
        _prompts(LENGTHS),
        Sampling(max_new_tokens=6),
        Draws(2, 3),
    )
    expected = write_answers(writer, prompts, sampling, draws)
    inner, halved = decode_loop._group, []

    def limited(asked, group):
        if len(group) > limit:
            raise torch.OutOfMemoryError("too many")
        return inner(asked, group)

    monkeypatch.setattr(decode_loop, "_group", limited)
    limit = 2
    assert write_answers(writer, prompts, sampling, draws, on_halved=halved.append) == expected
    assert halved == [3, 1, 2]
    limit = 0
    with pytest.raises(StageError, match="out of memory with one prompt of 20 tokens at a time") as error:
        write_answers(writer, prompts, sampling, draws)
    assert error.value.failure == "oom"


def test_a_model_that_runs_long_texts_otherwise_writes_them_alone_and_without_a_cache():
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 12}
    factors = {"short_factor": [1.0] * 6, "long_factor": [3.0] * 6}
    config = transformers.Phi3Config(
        **tiny_models.SMALL, rope_parameters=rope | factors, original_max_position_embeddings=12, pad_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval().requires_grad_(False)
    writer = Writer(split_model(model, tiny_models.VOCABULARY), ENDS)
    prompts, sampling, draws = _prompts([3, 4, 9, 10, 15]), Sampling(max_new_tokens=8), Draws(2, 3)
    assert [len(group) for group in groups(writer, prompts, sampling)] == [1, 1, 1, 2]
    assert write_answers(writer, prompts, sampling, draws) == _alone(writer, prompts, sampling, draws)


def _row(ids: list[int], mask: list[int]) -> TokenRow:
    return TokenRow(ids, [bool(one) for one in mask])


def test_a_prompt_is_what_stands_before_the_last_answer():
    rows = lay(
        [
            _row([5, 6, 7, 8], [0, 0, 1, 1]),
            _row([5, 6, 7, 8, 9, 10], [0, 1, 1, 0, 1, 0]),
            _row([5, 6], [1, 1]),
            _row([5, 6], [0, 0]),
            _row([], []),
        ]
    )
    assert [prompt_ids(rows, row) for row in range(5)] == [(5, 6), (5, 6, 7, 8), (), (5, 6), ()]


def test_an_answer_ends_with_what_ends_answers_in_the_rows_or_ends_a_sequence_for_the_model():
    tokenizer = tiny_models.tokenizer()  # <eos> 0, <bos> 1, <user> 2, <assistant> 3, <system> 4, then letters
    model = tiny_models.make("llama")
    model.generation_config.eos_token_id, model.config.eos_token_id = [3, 999], None
    turns = [_row([1, 9, 9, 20, 4, 21], [0, 0, 0, 1, 1, 1])] * 150  # the line's end after the end of turn counts too
    odd = [_row([1, 9, 9, 20, 2], [0, 0, 0, 1, 1])]  # less than one in a hundred
    cut = [_row([1, 9, 9, 20, 33], [0, 0, 0, 1, 1])] * 20
    assert end_tokens(lay([*turns, *odd, *cut]), tokenizer, [model]) == {0, 3, 4}
    assert end_tokens(lay(cut), tokenizer, []) == {0}


def test_rows_that_nobody_reads_are_no_answers_without_an_end():
    read = [_row([1, 9, 9, 20, 4], [0, 0, 0, 1, 1])] * 3
    assert end_tokens(lay([*read, *[_row([], [])] * 997]), tiny_models.tokenizer(), []) == {0, 4}
