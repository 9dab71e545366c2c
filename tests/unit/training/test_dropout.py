"""What dropout keeps of a row follows from its seed, on a CPU and where a card draws it."""

import hashlib

import pytest
import torch

from ablate.training.dropout import drawn_by_card, drawn_by_cpu, kept

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
