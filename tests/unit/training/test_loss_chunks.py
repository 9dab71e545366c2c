"""How many tokens' logits are held at once: as many as the memory there is for them, within bounds."""

import pytest
import torch
from support.allocations import allocations

from ablate.losses import LOSSES, parse
from ablate.training.head import Head
from ablate.training.loss import Objective, Scratch, TopKForm, chunk_size, chunks, fused_loss
from ablate.training.loss_chunks import BLOCK_BYTES, CHUNK_TOKENS, PEAK_BLOCKS, PEAK_TENSORS, chunk_tokens
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeacherVectors
from ablate.training.teacher_top_k import CutHidden

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


V, D, M = 4096, 8, 4096
"""A chunk of 64 MiB a tensor: two blocks."""


def outputs(kind):
    hidden_MD = torch.zeros(M, D, device="meta", dtype=torch.bfloat16)
    head = Head(torch.zeros(V, D, device="meta", dtype=torch.bfloat16), V)
    if kind == "class":
        return NoTeacher(), head
    if kind.startswith("vectors"):
        return TeacherVectors(hidden_MD, torch.zeros(M, device="meta", dtype=torch.float64)), head
    return (CutHidden if "cut" in kind else TeacherHidden)(hidden_MD, head), head


def peak_of(kind, name):
    """-> bytes that the loss of a chunk holds at once beside what it is given."""
    teacher, head = outputs(kind)
    form = TopKForm(64, True) if "cut" in kind else None
    objective = Objective(0.0 if kind == "class" else 0.5, parse(name), 2.0 if "tempered" in kind else 1.0, False, form)
    hidden_MD = torch.zeros(M, D, device="meta", dtype=torch.bfloat16)
    labels_M = torch.zeros(M, device="meta", dtype=torch.int64)
    known = [*(teacher if isinstance(teacher, tuple) else ()), hidden_MD, labels_M, head.weight]
    with allocations(part for part in known if isinstance(part, torch.Tensor)) as held:
        fused_loss(objective, hidden_MD, head, labels_M, teacher, Scratch(logit_bytes=4 * V * M))
    return held.peak - held.given


DIVERGENCES = [name for name in LOSSES if not LOSSES[name].crosses_tokenizers and name != "top_k"]
CASES = [(kind, name) for kind in PEAK_TENSORS for name in (DIVERGENCES if "live" in kind else ["forward_kl"])]
CASES.append(("live", "top_k"))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_loss_holds_as_many_tensors_of_a_chunks_logits_as_is_said_and_a_few_blocks(kind, name):
    chunk, block = 4 * V * M, BLOCK_BYTES["cuda"]
    assert chunk == 2 * block
    of_the_rest = 64 * M * 64  # tokens' own numbers, and the k kept of each
    most = PEAK_TENSORS[kind] * chunk + PEAK_BLOCKS * block + of_the_rest
    assert PEAK_TENSORS[kind] * chunk <= peak_of(kind, name) <= most
