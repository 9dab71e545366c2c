"""Whether a 70B teacher, and what is done with it, fits on so many cards of so much memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import judged_memory as judged
from support.allocations import allocations

from ablate.machine.slots import Slot
from ablate.planning.card_verdicts import sharded_bytes, verdict
from ablate.store.sizes import TensorShape, sizes_of
from ablate.study.training_recipes import Distill, Train
from ablate.training.memory_estimate import Beside, ForwardMemory, TrainingMemory, peak_tensors

CARDS = (24, 40, 80, 141)
ROW = 1024
SHARDS = "its weights in shards on {} cards (FSDP2)"
CHECKPOINTING = "with gradient checkpointing"


@pytest.fixture(scope="module")
def large():
    return judged.sizes(judged.meta_model(judged.LLAMA_70B))


@pytest.fixture(scope="module")
def small():
    return judged.sizes(judged.meta_model(judged.LLAMA_8B))


def with_eight(held):
    """-> on how many of eight cards of each size a stage fits, and how."""
    fits = {card: verdict(held, 8, card * 10**9) for card in CARDS}
    return {card: (each.num_cards, each.how) for card, each in fits.items()}


def test_a_70b_teacher_that_is_asked_alone_has_its_layers_on_several_cards(large):
    assert large.num_params == 70_553_706_496
    held = ForwardMemory(large, "bfloat16").held(ROW)
    assert with_eight(held) == {
        card: (num, f"its layers on {num} cards") for card, num in zip(CARDS, (8, 8, 2, 2), strict=True)
    }
    assert not verdict(held, 1, 141 * 10**9).is_fit
    assert not verdict(held, 4, 24 * 10**9).is_fit


def test_an_8b_student_beside_a_70b_teacher_shares_the_cards_or_has_its_layers_wait(large, small):
    recipe, beside = Distill(), Beside((large,), outputs=large.hidden)
    held = TrainingMemory(recipe, small, "bfloat16", peak_tensors(recipe), beside).held(ROW)
    found = with_eight(held)
    assert [num for num, _ in found.values()] == [0, 8, 4, 2]
    assert found[80][1].startswith(SHARDS.format(4))
    alone = verdict(held, 1, 80 * 10**9)
    assert alone.is_fit
    assert "the teacher's layers in the machine's memory" in alone.how


def shaped(hidden, layers, vocabulary, quantize):
    """-> the sizes of a Llama."""
    inner = 4 * hidden
    attention = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    mlp = {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    named = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(layers)
        for name, shape in (attention | mlp | {"input_layernorm": (hidden,)}).items()
    }
    named |= {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    config = {"hidden_size": hidden, "vocab_size": vocabulary, "num_hidden_layers": layers, "num_attention_heads": 8}
    sizes = sizes_of(config | {"intermediate_size": inner}, [TensorShape(name, shape) for name, shape in named.items()])
    return sizes._replace(quantize=quantize)


models = st.builds(
    shaped,
    st.sampled_from([256, 1024, 4096]),
    st.sampled_from([1, 3, 12]),
    st.sampled_from([1000, 128_256]),
    st.sampled_from([None, "int8", "nf4"]),
)


@given(
    student=models,
    teachers=st.lists(models, max_size=2),
    recipe=st.sampled_from([Distill(), Distill(gradient_checkpointing=True), Distill(lora=None)]),
    tokens=st.sampled_from([16, 4096]),
    share=st.floats(0.01, 1.5),
)
@settings(max_examples=100, deadline=None)
def test_no_stage_is_refused_that_the_plan_says_fits_and_none_is_begun_whose_weights_have_no_room(
    student, teachers, recipe, tokens, share
):
    beside = Beside(tuple(teachers))
    held = TrainingMemory(recipe, student, "bfloat16", peak_tensors(recipe), beside).held(tokens)
    card = int(held.estimate * share)
    is_begun = Slot("card", frozenset({"heavy"}), "cuda", memory_bytes=card).holds(held.weights)
    assert is_begun or not verdict(held, 1, card).is_fit
    assert is_begun == any(way.memory.weights <= card for way in held.ways)


def test_70b_are_fine_tuned_in_shards_and_all_their_weights_on_none_of_these(large):
    held = TrainingMemory(Train(), large, "bfloat16", 3).held(ROW)
    found = with_eight(held)
    assert found[24][0] == 0
    assert found[40] == (8, f"{SHARDS.format(8)}, {CHECKPOINTING}")
    assert found[80][1].startswith(SHARDS.format(4))
    assert found[141][1].startswith(SHARDS.format(2))
    whole = TrainingMemory(Train.model_validate({"lora": None}), large, "bfloat16", 3).held(ROW)
    for card in CARDS:
        refused = verdict(whole, 8, card * 10**9)
        assert not refused.is_fit
        assert "GB a card are needed at least" in refused.how


@pytest.mark.parametrize("tokens", [ROW, 8 * ROW])
def test_what_a_70b_teacher_holds_while_it_is_asked_is_what_was_estimated(large, tokens):
    model = judged.meta_model(judged.LLAMA_70B)
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    with torch.no_grad(), allocations([*model.parameters(), *model.buffers()]) as held:
        model.base_model(input_ids=ids, use_cache=False)
    memory = ForwardMemory(large, "bfloat16", peak_tensors=0).at(tokens, tokens)
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
    assert memory.beside_weights == pytest.approx(held.peak - held.given, rel=0.15)


def test_in_shards_a_card_holds_its_part_of_the_weights_and_two_layers(large):
    held = TrainingMemory(Train(), large, "bfloat16", 3).held(ROW)
    memory, layer = held.ways[0].memory, 2 * 855_654_400
    assert held.layer == layer
    of_eight = memory.context + -(-memory.weights // 8) + 2 * layer + memory.kept + memory.passing
    assert sharded_bytes(memory, held, 8) == of_eight
