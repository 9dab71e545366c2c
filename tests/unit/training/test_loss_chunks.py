"""How many tokens' logits are held at once: as many as the memory there is for them, within bounds."""

import pytest
import torch

from ablate.training.loss import Scratch, chunk_size, chunks
from ablate.training.loss_chunks import CHUNK_TOKENS, chunk_tokens

LLAMA = 128_256


def test_a_chunk_on_a_card_grows_with_the_memory_for_its_logits():
    sizes = [chunk_tokens(LLAMA, "cuda", bytes_) for bytes_ in (1 << 20, 1 << 28, 1 << 30, 1 << 40)]
    assert sizes == [256, 523, 2092, 8192]
    assert chunk_tokens(LLAMA, "cuda") == chunk_tokens(LLAMA, "meta") == 523  # 256 MiB, where nobody says


@pytest.mark.parametrize("vocabulary", [61, 4_096, 32_000, LLAMA])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_chunk_keeps_to_its_bounds_and_else_to_its_memory(device, vocabulary):
    least, most = CHUNK_TOKENS[device]
    for logit_bytes in (None, 1, 1 << 24, 1 << 30):
        size = chunk_tokens(vocabulary, device, logit_bytes)
        assert least <= size <= most
        if logit_bytes and size > least:
            assert size * vocabulary * 4 <= logit_bytes


def test_the_loss_cuts_what_it_is_given_by_the_memory_that_its_scratch_speaks_of():
    hidden_MD = torch.empty(1000, 8, device="meta")
    scratch = Scratch(logit_bytes=300 * 4 * LLAMA)
    assert chunk_size(hidden_MD, LLAMA, scratch.logit_bytes) == 300
    cuts = list(chunks(hidden_MD, LLAMA, scratch.logit_bytes))
    assert [len(range(1000)[cut]) for cut in cuts] == [300, 300, 300, 100]
