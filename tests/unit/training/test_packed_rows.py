"""Rows one after the other, without padding: each is answered as alone, and where it would not be, rows are padded."""

import math
import runpy
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support import tiny_models as tiny
from support.counts import counting

from ablate.feature_losses import parse as parse_features
from ablate.losses import parse
from ablate.study.policy import Policy
from ablate.study.training_recipes import Distill
from ablate.training import adapters, attention, batches, trainable
from ablate.training.features import make_features
from ablate.training.loss import CLASS_LOSS, Objective, TopKForm
from ablate.training.model_parts import ModelParts, _head, split_model
from ablate.training.step_loss import accumulate
from ablate.training.train import train
from ablate.training.training import Training

WINDOW = 6
ROWS = tiny.random_rows([9, 17, 5, 12, 31, 2])
"""Shorter than the window, and several times as long."""

GROUPED = tiny.SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
PACKED = {name: tiny.FAMILIES[name] for name in tiny.FAMILIES if name != "gemma2"} | {
    "grouped queries": ("LlamaConfig", GROUPED),
    "a sliding window": ("MistralConfig", tiny.SMALL | {"sliding_window": WINDOW}),
    "a window in some layers": (
        "Gemma3TextConfig",
        GROUPED | {"head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "experts": (
        "Qwen3MoeConfig",
        tiny.SMALL | {"head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "learned positions": (
        "OPTConfig",
        {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
        | {"word_embed_proj_dim": 24, "max_position_embeddings": 128},
    ),
}
OTHER = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
PADDED = {
    "capped scores": tiny.FAMILIES["gemma2"],
    "ALiBi": ("FalconConfig", OTHER | {"alibi": True}),
    "attention in chunks": (
        "Llama4TextConfig",
        tiny.SMALL | {"head_dim": 12, "num_local_experts": 2, "intermediate_size_mlp": 32, "attention_chunk_size": 8},
    ),
    "convolutions": ("Lfm2Config", tiny.SMALL | {"layer_types": ["conv", "full_attention"]}),
    "a recurrent state": ("MambaConfig", {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2}),
}


def model_of(name, settings, dtype=torch.float32, **how):
    torch.manual_seed(0)
    config = getattr(transformers, name)(**settings)
    return transformers.AutoModelForCausalLM.from_config(config, **how).to(dtype).eval()


@torch.no_grad()
def alone(model, rows):
    """-> logits of the loss-bearing tokens, of transformers' plain attention, row by row."""
    logits = []
    for index in range(len(rows)):
        ids = torch.tensor(rows.row(index)[0].tolist())[None]
        logits.append(model(input_ids=ids, use_cache=False).logits[0, :-1, : tiny.VOCABULARY])
    return torch.cat(logits)


@pytest.mark.parametrize("family", PACKED)
def test_each_row_is_answered_as_by_plain_transformers_alone(family):
    dtype = torch.float32 if family == "experts" else torch.float64  # which have no product in float64
    exact = alone(model_of(*PACKED[family], dtype, attn_implementation="eager"), ROWS)
    parts = split_model(model_of(*PACKED[family], dtype), tiny.VOCABULARY)
    assert parts.is_packed
    batch = batches.batch(ROWS, range(len(ROWS)), is_packed=True)
    assert batch.ids_BT.shape == (1, ROWS.lengths.sum())
    with torch.no_grad():
        logits = parts.head.logits(parts.hidden(batch))
    assert (logits - exact).abs().max() < 1e-6 * exact.abs().max()  # norms go through float32


@pytest.mark.parametrize("family", PADDED)
def test_rows_of_a_model_that_does_not_keep_them_apart_are_padded(family):
    parts = split_model(model_of(*PADDED[family]), tiny.VOCABULARY)
    assert not parts.cutting.is_packed
    (batch,) = batches.micro_batches(ROWS, [0, 1], 100, "cpu", parts.cutting)
    assert batch.ids_BT.shape == (2, 17)


def test_a_model_that_keeps_the_rows_lengths_from_its_attention_is_padded():
    model = model_of(*PACKED["llama"])

    def forgets(module, args, kwargs):
        return args, {name: value for name, value in kwargs.items() if name != "row_lengths"}

    model.model.layers[1].self_attn.register_forward_pre_hook(forgets, with_kwargs=True)
    assert not split_model(model, tiny.VOCABULARY).is_packed


def test_a_model_whose_rows_see_each_other_in_one_layer_is_padded():
    model = model_of(*PACKED["llama"])

    def leaks(module, args, kwargs, output):
        return output + 1e-2 * (output.cumsum(1) - output) if "row_lengths" in kwargs else output

    model.model.layers[0].register_forward_hook(leaks, with_kwargs=True)
    assert not split_model(model, tiny.VOCABULARY).is_packed


def test_a_layer_that_sees_farther_than_the_configuration_says_is_not_packed():
    model = model_of(*PACKED["a window in some layers"])
    model.config.sliding_window = WINDOW + 1  # which the layers do not hear of; no probe as short as ours would tell
    assert not split_model(model, tiny.VOCABULARY).is_packed


def test_a_torch_without_the_kernel_trains_on_and_a_card_pads_the_rows(monkeypatch):
    """torch 2.8, which is allowed, has none."""
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    earlier = runpy.run_path(attention.__file__)
    transformers.AttentionInterface.register(attention.NAME, attention._attend)  # once more, in the copy's place
    assert earlier["varlen_attn"] is None
    monkeypatch.setattr(attention, "varlen_attn", None)
    monkeypatch.setattr(attention, "is_card", lambda _: True)
    assert not split_model(model_of(*PACKED["llama"], torch.bfloat16), tiny.VOCABULARY).is_packed


def test_rows_on_two_sides_of_a_border_are_never_packed_together():
    sizes = tiny.SMALL | {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 16, "pad_token_id": 0}
    parts = split_model(model_of("Phi3Config", sizes), tiny.VOCABULARY)
    assert parts.is_packed
    exact = alone(model_of("Phi3Config", sizes, attn_implementation="eager"), ROWS)
    starts = [0, *(ROWS.lengths - 1).cumsum().tolist()]
    micro_batches = list(batches.micro_batches(ROWS, range(len(ROWS)), 1000, "cpu", parts.cutting))
    assert sorted(sorted(batch.rows) for batch in micro_batches) == [[0, 2, 3, 5], [1, 4]]
    for batch in micro_batches:
        theirs = torch.cat([exact[starts[row] : starts[row + 1]] for row in batch.rows])
        with torch.no_grad():
            torch.testing.assert_close(parts.head.logits(parts.hidden(batch)), theirs, rtol=1e-4, atol=1e-4)


# steps


def padded(training):
    parts, teacher = training.student, training.teacher
    return replace(
        training, student=replace(parts, is_packed=False), teacher=teacher and replace(teacher, is_packed=False)
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("is_recomputed", [False, True], ids=["kept", "recomputed"])
def test_a_step_is_the_same_packed_padded_and_row_by_row(family, dropout, is_recomputed):
    rows = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
    lora = {"rank": 4, "alpha": 6.0, "target_modules": list(tiny.targets(family)), "dropout": dropout}
    settings = reference.recipe(family, lora=lora, gradient_checkpointing=is_recomputed)
    training = reference.training_of(family, Objective(0.5, parse("forward_kl")), rows, settings=settings)
    assert training.cutting.is_packed
    losses, grads = reference.step(training)
    for other, budget in ((padded(training), 40), (training, 1)):
        others, their_grads = reference.step(other, budget)
        assert losses == pytest.approx(others, rel=1e-6)
        assert reference.relative(grads, their_grads) < 1e-5


@given(st.lists(st.integers(2, 400), min_size=1, max_size=40), st.integers(1, 2000))
def test_packed_micro_batches_are_as_few_as_their_tokens_ask_for_or_one_more(lengths, budget):
    parts = batches.packed_evenly(lengths, budget)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    sizes = [sum(lengths[place] for place in part) for part in parts]
    assert all(size <= budget or len(part) == 1 for size, part in zip(sizes, parts, strict=True))
    if max(lengths) <= budget / 4:
        assert len(parts) <= math.ceil(sum(lengths) / budget) + 1


def test_128_rows_as_long_as_alpacas_are_few_micro_batches_without_padding():
    lengths = torch.Generator().manual_seed(0)
    drawn = (30 + torch.empty(128).log_normal_(4.85, 0.75, generator=lengths)).clamp(32, 1024).int().tolist()
    rows = tiny.random_rows(drawn)
    for budget, most in ((2048, 14), (8192, 4), (32_768, 1)):
        cuts = batches.cut(rows, range(128), budget, batches.Cutting(is_packed=True))
        micro_batches = [batches.batch(rows, cut, is_packed=True) for cut in cuts]
        assert len(cuts) <= most
        assert sum(batch.ids_BT.numel() for batch in micro_batches) == sum(drawn)
        sizes = [batch.ids_BT.numel() for batch in micro_batches]
        assert max(sizes) <= 1.1 * min(sizes)


# what a device is asked for


def on_meta(seed, vocabulary=tiny.VOCABULARY):
    """-> a model without numbers: whatever asks for one fails."""
    with torch.device("meta"):
        model = model_of("LlamaConfig", GROUPED | {"tie_word_embeddings": False}, torch.bfloat16)
    attention.take_over(model)
    return ModelParts(model, _head(model, vocabulary), is_packed=True)


def training_on_meta(objective, has_teacher):
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": ["q_proj", "down_proj"]}
    recipe = Distill.model_validate({"batch_size": 6, "lora": lora})
    student = on_meta(0)
    weights = trainable.make_trainable(student.model, recipe, 5, adapters.Origin())
    teacher = on_meta(1) if has_teacher else None
    return Training(recipe, 5, ROWS, student, weights, objective, teacher=teacher)


@pytest.mark.parametrize("has_teacher", [False, True])
def test_a_card_is_asked_for_no_value_in_a_step_and_attends_to_all_rows_by_one_kernel(has_teacher):
    objective = Objective(0.5, parse("jsd")) if has_teacher else CLASS_LOSS
    training = training_on_meta(objective, has_teacher)
    with counting(training.student.model.parameters()) as counts:
        accumulate(training, training.rows_of(1), 1000, "meta")
    assert counts.syncs_by_name == {}
    assert counts.kernels_by_name["torch_attn._varlen_attn"] == 2 * (1 + has_teacher)
    assert counts.kernels_by_name["torch_attn._varlen_attn_backward"] == 2


METHODS = {
    "fine-tuning": (CLASS_LOSS, False),
    "forward KL": (Objective(0.5, parse("forward_kl")), True),
    "likeliest tokens": (Objective(0.5, parse("forward_kl"), top_k=TopKForm(4, True)), True),
}


def test_no_value_is_asked_for_of_hidden_states_that_are_compared_or_of_answers_as_a_whole():
    training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
    features = make_features(
        parse_features({"name": "mse", "projection": "trained"}), training.teacher, training.student, 3
    )
    policy = Objective(1.0, parse("reverse_kl"), policy=Policy(0.9, True, True, None, 0.2))
    own = training.rows_of(1)._replace(own=frozenset(range(len(ROWS))))
    for other, rows in (
        (replace(training, features=features), training.rows_of(1)),
        (replace(training, own_objective=policy), own),
    ):
        with counting(training.student.model.parameters()) as counts:
            sums = accumulate(other, rows, 20, "cpu")
        assert counts.syncs_by_name == {}
        assert sums.features > 0 or sums.own.num_tokens == ROWS.counts.loss_tokens


@pytest.mark.parametrize("method", METHODS)
def test_no_value_is_asked_for_however_many_micro_batches_there_are(method):
    objective, has_teacher = METHODS[method]
    training = reference.training_of("llama", objective, ROWS, has_teacher=has_teacher)
    for budget in (1, 1000):
        with counting(training.student.model.parameters()) as counts:
            accumulate(training, training.rows_of(1), budget, "cpu")
        assert counts.syncs_by_name == {}


def test_a_step_reads_as_much_of_its_device_however_many_micro_batches_it_has(tmp_path):
    syncs = []
    for name, budget in (("few", 1000), ("many", 10)):
        training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
        update = {"max_steps": 1, "micro_batch_tokens": budget}
        with counting() as counts:
            train(tiny.job(tmp_path / name), replace(training, recipe=training.recipe.model_copy(update=update)))
        syncs.append(counts.syncs)
    assert syncs[0] == syncs[1] > 0


def test_a_micro_batch_more_costs_a_card_thousands_of_tokens_the_more_the_smaller_the_model_is():
    def overhead(**sizes):
        with torch.device("meta"):
            config = transformers.LlamaConfig(vocab_size=128_256, tie_word_embeddings=True, **sizes)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return ModelParts(model, _head(model, 128_256)).cutting.overhead

    small = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    large = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
    assert 1000 < overhead(num_key_value_heads=8, **small) < 4000
    assert overhead(num_key_value_heads=8, **large) < 1000
