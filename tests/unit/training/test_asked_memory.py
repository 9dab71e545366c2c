"""What a stage is thought to hold of a card that only asks a model, against an allocator that follows every storage."""

import pytest
import torch
from support import judged_memory as judged
from support import judged_stages as stages

from ablate.study.answer_settings import Sampling
from ablate.training.forward_memory import FEWER_TEXTS, ForwardMemory, of_text

FEW = {"num_hidden_layers": 2, "max_position_embeddings": 4096}
"""Of a model's own: what is held beside the weights is then as much as these."""
SHAPES = {"1B": judged.LLAMA_1B | FEW, "8B": judged.LLAMA_8B | FEW}
SOAK = pytest.mark.soak


def real(name, *, is_packed=False, dtype=torch.bfloat16):
    return judged.parts(judged.meta_model(SHAPES[name], "Llama", dtype), is_packed=is_packed)


def require_held(memory, held):
    """The estimate is within 15 % of what was held, and so is all beside weights."""
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
    assert memory.needed - held.given == pytest.approx(held.peak - held.given, rel=0.15)


SIZES = {"hidden": 4096 * 2, "vector": 2048 * 4 + 8, "top_k": 64 * (4 + 2) + 3 * 4}
"""Bytes that a cache keeps of a token of the 8B teacher for the 1B student."""


ROWS = {
    "one padded": ([2048], False),
    "several packed": ([2048] * 4, True),
    "several padded": ([2048] * 4, False),
    "many packed": ([512] * 64, True),
}


@pytest.mark.parametrize("rows", [name if name in list(ROWS)[:2] else pytest.param(name, marks=SOAK) for name in ROWS])
@pytest.mark.parametrize("form", SIZES)
def test_a_capture_holds_what_is_estimated_in_every_form(form, rows, tmp_path):
    lengths, is_packed = ROWS[rows]
    teacher, student = real("8B", is_packed=is_packed), real("1B") if form == "vector" else None
    others = student.head.weight.numel() if student else 0
    memory = ForwardMemory(judged.sizes(teacher.model), "bfloat16", form, others, SIZES[form])
    held = stages.captured(form, teacher, lengths, tmp_path, student)
    require_held(memory.at(sum(lengths), max(lengths)), held)


FAMILIES = {
    "Gemma2": {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "head_dim": 256}
    | {"num_attention_heads": 8, "num_key_value_heads": 4},
    "GPT2": {"n_embd": 1600, "n_layer": 2, "n_head": 25, "n_positions": 2048},
    "Phi": {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32},
    "Qwen2": judged.QWEN_05B,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_whose_layers_hold_something_else_are_estimated_by_it(family, tmp_path):
    """Scores of all pairs, an activation that is written out, no gate."""
    shape = FAMILIES[family] | ({} if family == "GPT2" else {"num_hidden_layers": 2})
    teacher, lengths = judged.parts(judged.meta_model(shape, family)), [2048] * 4
    memory = ForwardMemory(judged.sizes(teacher.model), "bfloat16", "hidden", output_bytes=2 * teacher.width)
    require_held(memory.at(sum(lengths), max(lengths)), stages.captured("hidden", teacher, lengths, tmp_path))


ASKED = {
    "one long question": {"questions": 1, "context": 2048, "answers": 1},
    "many short questions": {"questions": 128, "context": 40},
    "long answers": {"questions": 1, "context": 1500, "answers": 10, "length": 100},
    "branching, nothing before": {"questions": 8, "context": 1500},
    "examples before all": {"questions": 16, "context": 1500, "shared": 1200},
    "examples before short questions": {"questions": 64, "context": 1510, "shared": 1490},
    "examples before one answer each": {"questions": 64, "context": 1510, "shared": 1490, "answers": 1},
}


@pytest.mark.parametrize("model", ["1B", pytest.param("8B", marks=SOAK)])
@pytest.mark.parametrize("asked", ASKED)
def test_an_evaluation_holds_what_is_estimated_whatever_its_questions_share(asked, model):
    parts = real(model)
    scored = stages.scored(parts, **ASKED[asked])
    memory = ForwardMemory(judged.sizes(parts.model), "bfloat16").of_trees(scored.tokens, scored.trees)
    require_held(memory, scored.held)


WRITTEN = {
    "short prompts": ([256] * 64, 300),
    "prompts of several lengths": ([250] * 8 + [256] * 8, 8),
    "long prompts": ([2048] * 16, 2),
}


@pytest.mark.parametrize("model", ["1B", pytest.param("8B", marks=SOAK)])
@pytest.mark.parametrize("case", [*list(WRITTEN)[1:], pytest.param("short prompts", marks=SOAK)])
def test_answers_that_are_written_hold_what_is_estimated(case, model):
    parts, (prompts, new) = real(model), WRITTEN[case]
    memory = ForwardMemory(judged.sizes(parts.model), "bfloat16", "text")
    require_held(memory.writing(len(prompts), max(prompts), new), stages.written(parts, prompts, new))


def test_an_answer_that_is_written_alone_needs_no_more_than_a_group_that_gave_way():
    sizes = judged.sizes(real("8B").model)
    together, alone = ForwardMemory(sizes, "bfloat16", "text").held_writing(1024, 1024).ways
    assert alone.changes == (FEWER_TEXTS,)
    held = stages.written(real("8B"), [1024], 8)
    assert alone.memory.needed == pytest.approx(held.peak, rel=0.15)
    assert together.memory.total > 2 * alone.memory.total


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 40}, {"temperature": 0.0}])
def test_the_next_token_is_drawn_in_no_more_memory_than_is_estimated(settings):
    parts, num, sampling = real("1B"), 64, Sampling.model_validate(settings)
    memory = ForwardMemory(judged.sizes(parts.model), "bfloat16", of_text(sampling)).writing(num, 16, 4)
    held = stages.written(parts, [16] * num, 4, sampling)
    assert held.peak <= memory.needed <= 1.15 * held.peak
