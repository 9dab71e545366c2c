"""What dropout keeps of a row follows from its seed, on a CPU and where a card draws it."""

import hashlib
from dataclasses import replace

import pytest
import torch
from support import reference
from support import tiny_models as tiny

from ablate.core.errors import StageError
from ablate.study.training_recipes import Distill
from ablate.training.dropout import drawn_by_card, drawn_by_cpu, kept
from ablate.training.loss import CLASS_LOSS
from ablate.training.selfcheck import gradients, relative_distance
from ablate.training.step_loss import accumulate

SEEDS, LENGTHS, WIDTH, DROPOUT = ("a", "b", "c"), (5, 3, 7), 64, 0.3
PACKED, PADDED = torch.empty(1, sum(LENGTHS), WIDTH), torch.empty(len(LENGTHS), max(LENGTHS), WIDTH)


@pytest.mark.parametrize("draw", [drawn_by_cpu, drawn_by_card])
def test_a_row_keeps_the_same_packed_padded_and_alone(draw):
    packed = draw(SEEDS, LENGTHS, PACKED, DROPOUT)
    padded = draw(SEEDS, LENGTHS, PADDED, DROPOUT)
    assert (packed.shape, padded.shape, packed.dtype) == (PACKED.shape, PADDED.shape, torch.bool)
    for number, (row, seed, length) in enumerate(zip(packed[0].split(LENGTHS), SEEDS, LENGTHS, strict=True)):
        assert torch.equal(padded[number, :length], row)
        alone = torch.empty(1, length, WIDTH)
        assert torch.equal(draw((seed,), (length,), alone, DROPOUT)[0], row)


@pytest.mark.parametrize("draw", [drawn_by_cpu, drawn_by_card])
def test_so_much_is_kept_as_is_not_dropped_and_every_seed_keeps_others(draw):
    num, lengths = 4, [500] * 4
    rows = draw([f"0/1/{row}/q_proj" for row in range(num)], lengths, torch.empty(1, sum(lengths), WIDTH), DROPOUT)[0]
    of_each = rows.view(num, -1).double()
    sd = (DROPOUT * (1 - DROPOUT) / of_each.shape[1]) ** 0.5
    assert ((of_each.mean(1) - (1 - DROPOUT)).abs() < 5 * sd).all()
    correlations = torch.corrcoef(of_each)[~torch.eye(num, dtype=torch.bool)]
    assert (correlations.abs() < 5 / of_each.shape[1] ** 0.5).all()


def test_a_cpu_keeps_what_it_always_did():
    seed = int.from_bytes(hashlib.sha256(b"b").digest()[:8], "big") >> 1
    numbers = torch.rand(3, WIDTH, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(kept(SEEDS, LENGTHS, PACKED, DROPOUT)[0, 5:8], numbers >= DROPOUT)


def test_on_a_card_nothing_is_drawn_elsewhere_and_it_takes_a_byte_a_number():
    mask = kept(SEEDS, LENGTHS, PACKED.to("meta"), DROPOUT)  # which stands for a card
    assert (mask.device.type, mask.dtype, mask.shape) == ("meta", torch.bool, PACKED.shape)


@pytest.mark.parametrize("rows", [PACKED, PADDED], ids=["packed", "padded"])
def test_tokens_in_other_dimensions_keep_the_same(rows):
    known = kept(SEEDS, LENGTHS, rows, DROPOUT)
    assert torch.equal(kept(SEEDS, LENGTHS, rows.flatten(0, 1), DROPOUT), known.flatten(0, 1))
    assert torch.equal(kept(SEEDS, LENGTHS, rows.unsqueeze(1), DROPOUT), known.unsqueeze(1))


def test_rows_that_are_not_all_there_are_told_by_name():
    with pytest.raises(StageError, match=r"lora.dropout: .* given 4 tokens of the 15"):
        kept(SEEDS, LENGTHS, torch.empty(4, WIDTH), DROPOUT)


FLATTENING = {
    "opt": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 24}),
    "qwen2_moe": ("Qwen2MoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek": (
        "DeepseekV3Config",
        {"first_k_dense_replace": 2, "kv_lora_rank": 8, "q_lora_rank": 8, "v_head_dim": 8},
    ),
}
"""Families that hand on the tokens of all rows as one list, or in four dimensions."""
ROWS = tiny.random_rows([9, 17, 5, 12], [3, 4, 2, 1])


@pytest.mark.parametrize("family", FLATTENING)
def test_a_family_that_flattens_its_tokens_drops_the_same_however_a_step_is_cut(family, monkeypatch):
    name, settings = FLATTENING[family]
    monkeypatch.setitem(tiny.FAMILIES, family, (name, tiny.SMALL | {"num_key_value_heads": 2} | settings))
    lora = {"rank": 4, "dropout": DROPOUT, "target_modules": "all-linear"}
    recipe = Distill.model_validate({"batch_size": 4, "warmup_steps": 0, "lora": lora})
    training = reference.training_of(family, CLASS_LOSS, ROWS, has_teacher=False, settings=recipe)
    parts = training.student
    cuts = {"together": [range(4)], "one by one": [[row] for row in range(4)]}
    grads = {}
    for is_packed in {parts.is_packed, False}:
        cut = replace(training, student=replace(parts, is_packed=is_packed))
        for how, rows in cuts.items():
            training.trainable.discard_grads()
            accumulate(cut, training.rows_of(1), 0, "cpu", rows)
            grads[is_packed, how] = gradients(training)
    known = grads.pop((False, "one by one"))
    assert [relative_distance(other, known) for other in grads.values()] == pytest.approx([0] * len(grads), abs=1e-5)
