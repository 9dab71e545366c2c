"""How many tokens' logits are held at once: as many as the memory there is for them, within bounds."""

import pytest
import torch
from support.allocations import allocations

from ablate.losses import LOSSES, parse
from ablate.study.policy import Policy
from ablate.training.head import Head
from ablate.training.loss import Objective, Scratch, TopKForm, chunk_size, chunks, fused_loss
from ablate.training.loss_chunks import CHUNK_TOKENS, LOSS_PEAKS, LossHead, chunk_tokens, loss_bytes
from ablate.training.policy_gradient import Answers, policy_gradient_loss
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeachersHidden, TeacherVectors
from ablate.training.teacher_top_k import CutHidden, TeacherTopK

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


V, D, M = LLAMA, 64, 523
"""One chunk."""


def narrow(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, device="meta", dtype=dtype)


HEADS = {
    "plain": lambda dtype: Head(narrow(V, D, dtype=dtype), V),
    "capped": lambda dtype: Head(narrow(V, D, dtype=dtype), V, softcap=30.0),
    "trained": lambda dtype: Head(narrow(V, D, dtype=dtype).requires_grad_(), V),
}


def outputs(kind, head):
    hidden_MD = torch.empty(M, D, device="meta", dtype=head.weight.dtype)
    live = TeacherHidden(hidden_MD, Head(torch.empty_like(head.weight), V, softcap=head.softcap))
    numbers = torch.empty(M, device="meta")
    return {
        "class": lambda: NoTeacher(),
        "vectors": lambda: TeacherVectors(hidden_MD.float(), numbers.double()),
        "live": lambda: live,
        "kept top k": lambda: TeacherTopK(numbers[:, None].int(), numbers[:, None].half(), *[numbers] * 3),
        "cut": lambda: CutHidden(*live),
        "mean of probabilities": lambda: TeachersHidden((live, live), (0.5, 0.5), "probabilities"),
        "mean of losses": lambda: TeachersHidden((live, live), (0.5, 0.5), "losses"),
    }[kind]()


def peak_of(kind, name, head):
    """-> bytes that the loss of a chunk holds at once beside what it is given."""
    kind, _, heat = kind.partition(", ")
    teacher = outputs(kind, head)
    form = TopKForm(1, True) if isinstance(teacher, CutHidden | TeacherTopK) else None
    objective = Objective(0.0 if kind == "class" else 0.5, parse(name), 2.0 if heat else 1.0, False, form)
    hidden_MD, labels_M = narrow(M, D, dtype=head.weight.dtype), torch.empty(M, device="meta", dtype=torch.int64)
    with allocations([*tensors_in(teacher), hidden_MD, labels_M, head.weight]) as held:
        fused_loss(objective, hidden_MD, head, labels_M, teacher, Scratch())
    return held.peak - held.given


def tensors_in(known):
    if isinstance(known, torch.Tensor):
        return [known]
    if isinstance(known, Head):
        return [known.weight]
    return [tensor for part in known for tensor in tensors_in(part)] if isinstance(known, tuple) else []


def bytes_told(kind, head):
    dtype = str(head.weight.dtype).removeprefix("torch.")
    num_trained = head.weight.numel() if head.is_trained else 0
    return loss_bytes(kind, M, LossHead(V, dtype, head.softcap is not None, num_trained))


DIVERGENCES = [name for name in LOSSES if not LOSSES[name].crosses_tokenizers]
OF_OTHER_TOKENS = {"spans", "rows"}
"""Which are judged in whole steps."""
KINDS = [kind for kind in LOSS_PEAKS if kind not in OF_OTHER_TOKENS | {"policy", "differentiated"}]


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_every_divergence_holds_what_is_said_of_a_live_teacher(name, heat):
    head = HEADS["plain"](torch.bfloat16)
    told = bytes_told("live", head)
    assert 0.85 * told <= peak_of("live" if heat == 1 else "live, tempered", name, head) <= 1.01 * told


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("way", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_holds_as_many_tensors_of_a_chunks_logits_as_is_said_by_what_is_known_of_the_teacher(kind, way, dtype):
    if kind.startswith("vectors") and way != "plain":
        pytest.skip("vectors serve a plain head alone")
    head = HEADS[way](dtype)
    told = bytes_told(kind, head)
    assert 0.85 * told <= peak_of(kind, "forward_kl", head) <= 1.05 * told


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_so_does_the_gradient_of_a_policy(discount, is_exact):
    head = HEADS["plain"](torch.bfloat16)
    teacher, hidden_MD, labels_M = outputs("live", head), narrow(M, D), narrow(M, dtype=torch.int64)
    with allocations([*tensors_in(teacher), hidden_MD, labels_M, head.weight]) as held:
        policy = Policy(discount, is_exact, True, 1.0)
        policy_gradient_loss(policy, hidden_MD, head, Answers(labels_M, (M,)), teacher, Scratch())
    assert held.peak - held.given == pytest.approx(bytes_told("policy", head), rel=0.05)
