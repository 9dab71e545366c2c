"""Whether a 70B teacher, and what is done with it, fits on so many cards of so much memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import judged_cards as by_hand
from support import judged_memory as judged

from ablate.machine.slots import Slot
from ablate.planning.card_verdicts import numbers_of_cards, placed_bytes, sharded_bytes, verdict
from ablate.store.memory import Held
from ablate.store.sizes import TensorShape, sizes_of
from ablate.study.training_recipes import Distill, Train
from ablate.training.forward_memory import ForwardMemory
from ablate.training.memory_estimate import Beside, TrainingMemory

SIZES = (24, 40, 80, 141)
NUMS = (1, 2, 4, 8)
ROW = by_hand.ROW
WIDTH = "bfloat16"
LAYER = 855_654_400 * 2
"""Bytes, of Llama 3.3 70B."""
OUTSIDE = (2 * 128_256 + 1) * 8192 * 2
"""Of its embedding, head and last norm."""


@pytest.fixture(scope="module")
def large():
    return judged.sizes(by_hand.model("70B"))


@pytest.fixture(scope="module")
def small():
    return judged.sizes(by_hand.model("8B"))


@pytest.fixture(scope="module")
def estimates(large, small) -> dict[str, Held]:
    beside = Beside((large,), output_bytes=2 * large.hidden)
    return {
        "the teacher is fine-tuned": TrainingMemory(Train(), large, WIDTH).held(ROW),
        "the student is fine-tuned": TrainingMemory(Train(), small, WIDTH).held(ROW),
        "the student beside the teacher": TrainingMemory(Distill(), small, WIDTH, beside).held(ROW),
        "the teacher is asked": ForwardMemory(large, WIDTH, "hidden").held(ROW),
        "the teacher is evaluated": ForwardMemory(large, WIDTH).held(ROW, by_hand.KEYS_AND_VALUES["70B"]),
        "the student is evaluated": ForwardMemory(small, WIDTH).held(ROW, by_hand.KEYS_AND_VALUES["8B"]),
    }


# one line for cards of 24, 40, 80 and 141 GB, one place for 1, 2, 4 and 8 of them: that hold a copy of the models;
# 0: none; h: one, with the teacher's layers in the machine's memory
FITS = {
    "the teacher is fine-tuned": ["0000", "0000", "0044", "0222"],
    "the student is fine-tuned": ["1111", "1111", "1111", "1111"],
    "the student beside the teacher": ["0000", "hhh8", "hh44", "h222"],
    "the teacher is asked": ["0008", "0044", "0222", "0222"],
    "the teacher is evaluated": ["0008", "0044", "0222", "0222"],
    "the student is evaluated": ["1111", "1111", "1111", "1111"],
}


@pytest.mark.parametrize("stage", FITS)
def test_each_verdict_on_1_2_4_and_8_cards_of_24_to_141_gb_is_that_of_bytes_counted_by_hand(stage, estimates):
    rooms = by_hand.rooms_of(stage, NUMS[1:])
    for size, expected in zip(SIZES, FITS[stage], strict=True):
        for num, word in zip(NUMS, expected, strict=True):
            counted = by_hand.first_fit([room for room in rooms if room.num_cards <= num], size * 10**9)
            planned = verdict(estimates[stage], num, size * 10**9)
            assert planned.num_cards == (counted.num_cards if counted else 0), (size, num)
            is_on_host = "in the machine's memory" in planned.how
            assert word == ("h" if planned.is_fit and is_on_host else str(planned.num_cards)), (size, num)
            room = counted or min((room for room in rooms if room.num_cards <= num), key=lambda each: each.card_bytes)
            assert is_on_host == room.is_offloaded
            assert planned.card_bytes == pytest.approx(room.card_bytes, rel=0.15)


def test_what_gives_way_is_named_with_the_cards(estimates):
    held = estimates["the teacher is fine-tuned"]
    assert verdict(held, 4, 80 * 10**9).how == ("its weights in shards on 4 cards (FSDP2), with gradient checkpointing")
    assert verdict(held, 2, 141 * 10**9).how == "its weights in shards on 2 cards (FSDP2)"
    assert verdict(estimates["the student is fine-tuned"], 1, 24 * 10**9).how == "with gradient checkpointing"
    refused = verdict(held, 8, 40 * 10**9)
    assert not refused.is_fit
    assert refused.how.startswith("42.5 GB a card are needed at least, its weights in shards on 8 cards (FSDP2)")


def test_a_rank_holds_its_part_of_each_layer_and_all_of_what_is_outside_of_them_and_trained(large):
    assert large.num_params == 70_553_706_496
    held = TrainingMemory(Train(), large, WIDTH).held(ROW)
    memory = held.ways[0].memory
    assert held.layers == (LAYER,) * 80
    assert memory.frozen == 80 * LAYER + OUTSIDE
    static = OUTSIDE + 80 * LAYER // 8 + memory.trained
    gathered = max(3 * LAYER, 2 * LAYER + memory.passing)
    assert sharded_bytes(memory, held, 8) == memory.context + static + memory.kept + gathered


def test_where_every_weight_is_trained_or_in_few_bits_further_cards_take_nothing_off(large):
    whole = TrainingMemory(Train.model_validate({"lora": None}), large, WIDTH).held(ROW)
    one, eight = (verdict(whole, num, 141 * 10**9) for num in (1, 8))
    assert one == eight
    assert not eight.is_fit
    few = TrainingMemory(Train(), large._replace(quantize="nf4"), WIDTH).held(ROW)
    norms = 2 * 8192 * 2
    assert few.layers == (norms,) * 80  # codes are no parameters, so each rank has all of them
    assert sharded_bytes(few.ways[0].memory, few, 8) > few.ways[0].memory.total - few.ways[0].memory.passing - 10**8
    assert verdict(few, 8, 80 * 10**9).num_cards == 1
    asked = ForwardMemory(large._replace(quantize="nf4"), WIDTH, "hidden").held(ROW)
    assert verdict(asked, 4, 40 * 10**9).num_cards == 2


def test_modules_that_are_trained_whole_are_whole_on_every_rank(large):
    saved = Train.model_validate({"lora": {"modules_to_save": ["mlp.down_proj"], "target_modules": ["q_proj"]}})
    held = TrainingMemory(saved, large, WIDTH).held(ROW)
    assert held.layers == (LAYER - 8192 * 28_672 * 2,) * 80


def test_of_layers_on_several_cards_the_first_has_embedding_and_head_beside_its_own(large):
    held = ForwardMemory(large, WIDTH, "hidden").held(ROW, 80 * 1000)
    memory = held.ways[0].memory
    whole = by_hand.model("70B")
    for num in (2, 3, 8):
        loads = by_hand.loads(whole, num, of_layer=1000)
        assert placed_bytes(memory, held, num) == memory.context + max(loads.values()) + memory.passing


@pytest.mark.parametrize(("num", "nums"), [(1, []), (2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6]), (8, [2, 4, 8])])
def test_all_cards_that_there_are_count_not_powers_of_two_alone(num, nums):
    assert numbers_of_cards(num) == nums


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
    held = TrainingMemory(recipe, student, "bfloat16", beside).held(tokens)
    card = int(held.estimate * share)
    is_begun = Slot("card", frozenset({"heavy"}), "cuda", memory_bytes=card).holds(held.weights)
    assert is_begun or not verdict(held, 1, card).is_fit
    assert is_begun == any(way.memory.weights <= card for way in held.ways)


@pytest.mark.parametrize("tokens", [ROW, 8 * ROW])
def test_what_a_70b_teacher_holds_while_it_is_asked_is_what_was_estimated(large, tokens):
    model = by_hand.model("70B")
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    with torch.no_grad(), judged.judging([*model.parameters(), *model.buffers()]) as held:
        model.base_model(input_ids=ids, use_cache=False)
    memory = ForwardMemory(large, "bfloat16", "hidden").at(tokens, tokens)
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
    assert memory.beside_weights == pytest.approx(held.peak - held.given, rel=0.15)
