"""What requests share is run once, and every answer is the one that lm-eval's own class gives."""

import math
from dataclasses import dataclass, field

import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from support import tiny_models as tiny
from support.asking import Ear, agree, instances
from support.tree_requests import (
    ALL,
    ALONE,
    BRANCHING,
    CHOICES,
    OTHERS,
    OTHERWISE,
    QUESTIONS,
    SHARING,
    make,
    with_preamble,
)
from tokenizers.processors import TemplateProcessing

from ablate.core.errors import StageError
from ablate.evaluation.forest_scorer import ForestScorer
from ablate.evaluation.model import SharingLM
from ablate.evaluation.trees import Forest, Request, build_forest
from ablate.training import batches
from ablate.training.model_parts import split_model

# in capitals: the heads of the tiny families end before the small letters


def tokenizer_with_bos():
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    return tokenizer


# every sort of model


@pytest.mark.parametrize("pairs", [ALL, with_preamble(BRANCHING)], ids=["all sorts", "one preamble"])
@pytest.mark.parametrize("family", SHARING)
def test_every_answer_is_lm_evals(family, pairs):
    ear = agree(make(family), tiny.tokenizer(), pairs)
    assert ear.answered.keys() == set(range(len(pairs)))
    assert (ear.num_of_lm_evals, ear.notes.keys() - {"cut from the left"}) == (0, set())


@pytest.mark.parametrize("pairs", [ALL, with_preamble(BRANCHING)], ids=["all sorts", "one preamble"])
@pytest.mark.parametrize("family", OTHERWISE)
def test_a_model_with_a_mask_of_its_own_is_asked_lm_evals_way(family, pairs):
    ear = agree(make(family), tiny.tokenizer(), pairs)
    assert (len(ear.answered), ear.num_of_lm_evals) == (0, len(pairs))
    assert "takes no tree of requests" in ear.notes["nothing was shared"]


@pytest.mark.parametrize("family", ["mpt", "recurrent_gemma", "lfm2", "qwen3_next"])
def test_rounding_does_not_hide_what_a_mask_cannot_hold_apart(family):
    ear = Ear()
    SharingLM(make(family).bfloat16(), tiny.tokenizer(), 16, ear).loglikelihood(instances(BRANCHING))
    assert "takes no tree of requests" in ear.notes["nothing was shared"]
    assert (len(ear.answered), ear.num_of_lm_evals) == (0, len(BRANCHING))


def test_a_model_whose_frequencies_depend_on_the_longest_request_shares_short_ones_alone():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
    sizes = tiny.SMALL | {"rope_parameters": rope, "original_max_position_embeddings": 16, "pad_token_id": 0}
    model = transformers.AutoModelForCausalLM.from_config(transformers.Phi3Config(**sizes)).float().eval()
    for pairs, is_shared in (([("OF A", " B"), ("OF A", " C")], True), (BRANCHING, False)):
        ear = Ear()
        SharingLM(model, tiny.tokenizer(), 16, ear).loglikelihood(instances(pairs))
        assert ("nothing was shared" not in ear.notes) is is_shared


@pytest.mark.parametrize("family", ["mistral, short-sighted", "gemma2, short-sighted"])
def test_a_window_wider_than_every_request_changes_nothing(family):
    ear = agree(make(family), tiny.tokenizer(), [(f"OF {number}", choice) for number in range(4) for choice in CHOICES])
    assert ear.notes == {}
    ear = agree(make(family), tiny.tokenizer(), [("TWENTY-FIVE TOKENS IN ALL", "!!")])
    assert "its layers see 24 tokens back, and a request has 26" in ear.notes["nothing was shared"]


def without(name):
    return lambda settings: {key: value for key, value in settings.items() if key != name}


def short_of_positions(settings):
    positions = settings.get("position_ids")
    return settings if positions is None else settings | {"position_ids": positions.clamp(max=60)}


WIDE = [("WIDE", f" {number * 7919} ENDINGS") for number in range(20)]
DEEP = [("DEEP " * 14, ending) for ending in ("END", "ENDING", "S")]
FAULTS = {
    "no mask": (without("attention_mask"), BRANCHING),
    "no mask, branches between": (without("attention_mask"), [*ALONE, *BRANCHING, *ALONE]),
    "no mask, a row wider than branches": (without("attention_mask"), [*BRANCHING, ("LONG " * 24, " ALONE")]),
    "no positions": (without("position_ids"), BRANCHING),
    "no keys and values": (without("past_key_values"), with_preamble(BRANCHING)),
    "no keys and values, no branches": (without("past_key_values"), with_preamble(ALONE)),
    "few positions": (short_of_positions, [*WIDE, *DEEP]),
}
"""What a model does with what it is told beside the tokens, and requests where that matters."""


@pytest.mark.parametrize(("fault", "pairs"), FAULTS.values(), ids=FAULTS)
def test_a_model_that_shares_wrongly_is_found_out(fault, pairs):
    model = make("llama")
    forward = model.base_model.forward
    model.base_model.forward = lambda *arguments, **settings: forward(*arguments, **fault(settings))
    ear = agree(model, tiny.tokenizer(), pairs)
    assert "takes no tree of requests: a log-likelihood is" in ear.notes["nothing was shared"]
    assert ear.num_of_lm_evals == len(pairs)


def with_cache(forward, handed):
    def run(*arguments, cache=None, **settings):
        handed.append(cache is not None)
        return forward(*arguments, cache=cache, **settings)

    return run


def with_past_key_values(forward, handed):
    def run(*arguments, past_key_values=None, **settings):
        handed.append(past_key_values is not None)
        return forward(*arguments, **settings | {"cache": past_key_values})

    return run


@pytest.mark.parametrize("named", [with_cache, with_past_key_values])
def test_keys_and_values_are_handed_over_under_the_name_that_the_model_has_for_them(named):
    model, handed = make("llama"), []
    model.base_model.forward = named(model.base_model.forward, handed)
    forest, continuations = build_forest([Request("Q", (*range(20), end), (end,)) for end in (3, 4)]), [(3,), (4,)]
    scorer = ForestScorer(split_model(model, tiny.VOCABULARY), 64, "cpu")
    beside_a_prefix = Forest(tuple(range(16)), forest.trees)
    list(scorer.responses(beside_a_prefix, continuations))
    assert any(handed)


# edges


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer, tokenizer_with_bos])
@pytest.mark.parametrize("pair", OTHERS)
def test_a_request_alone_is_answered_as_lm_eval_does(pair, tokenizer):
    assert len(agree(make("llama"), tokenizer(), [pair]).answered) == 1


def test_a_first_token_that_the_tokenizer_writes_is_written_once():
    pairs = [*ALL, ("   ", "AFTER SPACES ALONE"), ("<bos>", "AFTER THE BEGINNING ALONE")]
    ear = agree(make("llama"), tokenizer_with_bos(), pairs)
    assert len(ear.answered) == len(pairs)


@pytest.mark.parametrize("pair", [("A", ""), ("", ""), ("", "<bos>"), ("  ", "A"), ("A", "B" * 129)])
def test_what_lm_eval_refuses_is_refused(pair):
    model, tokenizer = make("llama"), tiny.tokenizer()
    with pytest.raises((AssertionError, IndexError)) as theirs:
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(instances([pair]))
    with pytest.raises(theirs.type):
        SharingLM(model, tokenizer, 1, Ear()).loglikelihood(instances([*ALL, pair]))


def test_requests_that_are_cut_at_the_window_are_counted():
    assert agree(make("llama"), tiny.tokenizer(), ALL).notes == {"cut from the left": "3 of 50 requests, at 128 tokens"}


def test_of_equally_likely_tokens_the_first_one_is_greedy():
    model = make("llama")
    model.lm_head.weight.data[:] = 0
    model.lm_head.weight.data[5:7] = torch.ones(2, 24)
    ear = agree(model, tiny.tokenizer(), [(question, ending) for question in QUESTIONS for ending in (" ", "!", "  ")])
    assert {answer.is_greedy for answer in ear.answered.values()} == {True, False}


@pytest.mark.parametrize("shift", [-1e4, -300.0, -80.0, 80.0, 1e4])
def test_logits_far_from_0_cost_no_digit_but_their_own(shift):
    model = make("llama").double()
    bias = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.lm_head = torch.nn.Linear(24, 64, dtype=torch.float64)
    model.lm_head.bias.data = bias + shift
    assert agree(model, tiny.tokenizer(), BRANCHING).notes == {}


def test_answers_that_are_no_numbers_are_lm_evals():
    model = make("llama")
    model.lm_head = torch.nn.Linear(24, 64)
    model.lm_head.bias.data[6] = -math.inf
    ear = agree(model, tiny.tokenizer(), [("A", "!"), ("A", "B")])
    assert "its logits are not finite" in ear.notes["nothing was shared"]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float16", 2e-2), ("bfloat16", 5e-2)])
def test_other_dtypes_share_too(dtype, tolerance):
    model, ear = make("llama").to(getattr(torch, dtype)), Ear()
    ours = SharingLM(model, tiny.tokenizer(), 4, ear).loglikelihood(instances(ALL))
    theirs = HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=1).loglikelihood(instances(ALL))
    assert ear.notes.keys() == {"cut from the left"}
    for (mine, _), (other, _) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=tolerance, abs=tolerance)


# memory


@pytest.mark.parametrize("budget", [1, 150, 10**6])
@pytest.mark.parametrize("pairs", [ALL, with_preamble(BRANCHING)], ids=["all sorts", "one preamble"])
def test_how_requests_are_put_together_changes_no_answer(budget, pairs, monkeypatch):
    monkeypatch.setattr(batches, "CPU_BUDGET", budget)
    assert len(agree(make("llama"), tiny.tokenizer(), pairs).answered) == len(pairs)


@dataclass
class Card:
    """Memory for so many tokens, and for no more."""

    fits: int
    asked: list[int] = field(default_factory=list)

    def __call__(self, _, arguments, settings):
        self.asked.append(settings.get("input_ids", *arguments).numel())
        if self.asked[-1] > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(("pairs", "fits"), [(ALL, 150), (with_preamble([*BRANCHING, *ALONE]), 85)])
def test_out_of_memory_changes_no_answer_and_happens_once_a_size(pairs, fits):
    model, card = make("llama"), Card(fits)
    model.base_model.register_forward_pre_hook(card, with_kwargs=True)
    ear = agree(model, tiny.tokenizer(), pairs)
    refused = [num for num in card.asked if num > card.fits]
    assert refused
    assert refused == sorted(set(refused), reverse=True)
    assert ear.notes["out of memory"] == f"micro-batches of {refused[-1]} tokens halved"
    assert len(ear.answered) == len(pairs)


def test_one_question_too_large_for_the_memory_is_told():
    model = make("llama")
    model.base_model.register_forward_pre_hook(Card(fits=70), with_kwargs=True)
    with pytest.raises(StageError, match=r"out of memory with one question of 128 tokens") as caught:
        SharingLM(model, tiny.tokenizer(), 1, Ear()).loglikelihood(instances(ALL))
    assert caught.value.failure == "oom"


# tokens that are kept


def counted(tokenizer):
    """-> a tokenizer of the same class that counts the texts it is given."""

    class Counting(type(tokenizer)):
        num_texts = 0

        def __call__(self, texts, **settings):
            type(self).num_texts += len(texts)
            return super().__call__(texts, **settings)

    Counting.__module__ = type(tokenizer).__module__
    tokenizer.__class__ = Counting
    return tokenizer


def answers_and_count(tokens, tokenizer, pairs=BRANCHING, name="llama"):
    """-> (answers, number of texts that were tokenised for them)."""
    before = type(tokenizer).num_texts
    answers = SharingLM(make(name), tokenizer, 4, Ear(), tokens).loglikelihood(instances(pairs))
    return answers, type(tokenizer).num_texts - before


def test_questions_are_tokenised_once_for_all_models_of_a_tokenizer(tmp_path):
    first, num_first = answers_and_count(tmp_path / "tokens", counted(tiny.tokenizer()), ALL)
    second, num_second = answers_and_count(tmp_path / "tokens", counted(tiny.tokenizer()), ALL)
    other, _ = answers_and_count(tmp_path / "tokens", counted(tiny.tokenizer()), ALL, "qwen2")
    without, _ = answers_and_count(None, counted(tiny.tokenizer()), ALL, "qwen2")
    assert (num_first > len(BRANCHING), num_second) == (True, 0)
    assert (second, other) == (first, without)


def changed_bos(tokenizer):
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])


def changed_class(tokenizer):
    type(tokenizer).__module__ = "code_of_a_stranger"


@pytest.mark.parametrize("change", [changed_bos, changed_class])
def test_tokens_of_another_tokenizer_are_not_taken(tmp_path, change):
    answers_and_count(tmp_path, counted(tiny.tokenizer()))
    other = counted(tiny.tokenizer())
    change(other)
    assert answers_and_count(tmp_path, other)[1] > 0


def test_tokens_of_other_texts_are_not_taken(tmp_path):
    tokenizer = counted(tiny.tokenizer())
    answers_and_count(tmp_path, tokenizer)
    assert answers_and_count(tmp_path, tokenizer, with_preamble(BRANCHING))[1] > 0
    assert answers_and_count(tmp_path, tokenizer, BRANCHING[1:])[1] > 0


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9, 1])
@pytest.mark.parametrize("is_cut", [True, False])
def test_tokens_damaged_on_the_disk_are_made_anew(tmp_path, share, is_cut):
    first, num = answers_and_count(tmp_path, counted(tiny.tokenizer()))
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    at = int(share * (len(raw) - 1))
    raw[at] ^= 1
    path.write_bytes(raw[:at] if is_cut else raw)
    again, num_again = answers_and_count(tmp_path, counted(tiny.tokenizer()))
    assert (again, num_again) == (first, num)


# chat templates

TURNS = (
    "{% for m in messages %}{% if m.role == 'system' %}SYSTEM{% else %}<{{ m.role }}>{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
REFUSES = TURNS.replace("SYSTEM", "{{ raise_exception('no system turn') }}")
LEAVES_OUT = TURNS.replace("SYSTEM", "")
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def _chatting(chat_template: str, instruction: str | None) -> tuple[SharingLM, Ear]:
    tokenizer, ear = tiny.tokenizer(), Ear()
    tokenizer.chat_template = chat_template
    lm = SharingLM(make("llama"), tokenizer, 4, ear)
    lm.use_template(True, instruction)
    return lm, ear


@pytest.mark.parametrize(
    ("template", "why"),
    [(REFUSES, "refuses a system's turn: no system turn"), (LEAVES_OUT, "leaves a system's turn out")],
)
def test_an_instruction_that_no_model_would_see_is_refused_where_lm_eval_leaves_it_out(template, why):
    with pytest.raises(StageError, match=f"system_instruction: the model's chat template {why}"):
        _chatting(template, "Be brief.")


def test_a_description_that_a_template_refuses_is_left_out_as_lm_eval_does_and_noted():
    lm, ear = _chatting(REFUSES, None)
    theirs = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer)
    assert lm.apply_chat_template(CHAT) == theirs.apply_chat_template(CHAT) == "<user>Why?<assistant>"
    assert "no system turn" in ear.notes["the task's description left out"]


def test_a_chat_that_a_template_refuses_is_told_in_its_words():
    lm, _ = _chatting("{{ raise_exception('turns must alternate') }}", None)
    with pytest.raises(StageError, match=r"evaluate\.apply_chat_template: .*turns must alternate"):
        lm.apply_chat_template(CHAT)


def test_an_instruction_in_a_systems_turn_is_in_the_text():
    lm, _ = _chatting(TURNS.replace("SYSTEM", "<system>{{ m.content }}"), "Be brief.")
    assert lm.apply_chat_template(CHAT) == "<system>Be brief.<user>Why?<assistant>"
