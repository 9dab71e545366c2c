"""How many tokens' logits a loss holds at once, as the loss itself and an estimate of memory count them: no torch."""

from typing import NamedTuple

from ablate.study.field_types import BYTES, Dtype

LOGIT_BYTES = 4
"""Of one logit: float32."""
CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Of one tensor of a chunk's logits, where nobody says how much memory there is."""
CHUNK_TOKENS = {"cpu": (64, 256), "cuda": (256, 8192)}
"""At least, so that the head's weights are not read for a few tokens only, and at most.

On a card a chunk reads a head of width D three times in 16 bits, 6 D / C bytes a logit beside some 47 that the loss
itself moves: with D = 2,048 at 256 tokens as much again, at 1,024 a quarter, beyond 4,096 next to nothing.
"""


class LossPeak(NamedTuple):
    """Tensors of a chunk's logits in float32 that a loss holds together at the most."""

    before: int
    """Before the gradient goes back through the head, blocks apart."""
    back: int
    """While it does."""
    blocks: int = 0
    """Of the rows that are worked on at a time, beside `before`."""
    is_exact: bool = False
    """Whether on the way back numbers of 16 bits are two halves of a tensor (else they are it, rounded)."""


LOSS_PEAKS = {
    "class": LossPeak(1, 1, is_exact=True),
    "vectors": LossPeak(1, 1, is_exact=True),
    "vectors, tempered": LossPeak(2, 2, is_exact=True),
    "live": LossPeak(2, 2, 6),
    "differentiated": LossPeak(2, 2, 12),
    "kept top k": LossPeak(1, 1),
    "kept top k, tempered": LossPeak(2, 2),
    "cut": LossPeak(2, 2, 2),
    "cut, tempered": LossPeak(3, 3),
    "mean of probabilities": LossPeak(5, 2),
    "mean of losses": LossPeak(3, 2, 8),
    "spans": LossPeak(12, 2),
    "rows": LossPeak(14, 2),
    "policy": LossPeak(6, 3),
}
"""By what is known of the teacher and how it is learnt from; tempered: at a temperature other than 1.

`live`: whichever of this package's divergences; `differentiated`: one without a formula for its gradient. Of `spans`
and `rows` the whole chunk, or row, is differentiated by torch.
"""


class LossHead(NamedTuple):
    """What of a student's head decides how much a loss holds."""

    vocabulary: int
    """The larger one of student's and teacher's."""
    dtype: Dtype
    is_capped: bool = False
    num_trained: int = 0
    """Weights, where it is trained."""


def loss_bytes(kind: str, tokens: int, head: LossHead, logit_bytes: int | None = None) -> int:
    """-> what the loss of so many tokens holds on a card at the most, chunk after chunk; of rows, of one of them.

    `logit_bytes`: see `chunk_tokens`.
    """
    peak, narrow = LOSS_PEAKS[kind], BYTES[head.dtype]
    most = tokens if kind == "rows" else chunk_tokens(head.vocabulary, "cuda", logit_bytes)
    wide = max(LOGIT_BYTES, narrow)
    tensor = min(tokens, most) * head.vocabulary * wide
    block = min(tokens, block_rows(head.vocabulary, "cuda", wide)) * head.vocabulary * wide
    before = (peak.before + head.is_capped) * tensor + peak.blocks * block
    back = peak.back * tensor + int(_narrowed(peak, head) * tensor) + wide * head.num_trained
    end = tensor + (wide + 2 * narrow) * head.num_trained  # the gradient, rounded, and added to the weight's
    return max(before, back, end if head.num_trained else 0)


def _narrowed(peak: LossPeak, head: LossHead) -> float:
    """-> tensors that are made of the gradient in the logits on its way back."""
    if head.is_capped:
        return 3.0
    if BYTES[head.dtype] >= LOGIT_BYTES:
        return 0.0
    is_scaled = head.dtype == "float16"
    if head.num_trained:
        return 2.5 if is_scaled else 1.0
    return is_scaled + (1.0 if peak.is_exact else 0.5)


class AskedPeak(NamedTuple):
    """The same of a model that is only asked."""

    tensors: int
    blocks: int = 0
    narrow: int = 0
    """Tensors more where numbers have 16 bits."""


ASKED_PEAKS = {
    "scores": AskedPeak(2),
    "hidden": AskedPeak(0),
    "vector": AskedPeak(2, narrow=1),
    "top_k": AskedPeak(1, 2),
    "text": AskedPeak(4),
    "text, top_p": AskedPeak(10),
}
"""By what is made of the logits: scores of tokens, a form of a teacher's cache, or the next token of a text.

With top_p all tokens may have to be sorted.
"""


def asked_bytes(what: str, tokens: int, vocabulary: int, width: int) -> int:
    """-> what is held on a card of the logits of so many tokens and what is made of them, chunk after chunk.

    `width`: bytes of the model's numbers.
    """
    peak, wide = ASKED_PEAKS[what], max(LOGIT_BYTES, width)
    chunk = min(tokens, chunk_tokens(vocabulary, "cuda"))
    block = min(tokens, block_rows(vocabulary, "cuda", wide))
    num = (peak.tensors + (peak.narrow if width < LOGIT_BYTES else 0)) * chunk + peak.blocks * block
    return num * vocabulary * wide


BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 32 << 20}
"""Of one tensor of the rows of a chunk that a loss works on at a time.

What it makes beside the logits is of this size, whatever the chunk's. On a CPU all of it stays in the cache: 4 times as
fast at V = 128,256 as the whole chunk at once; on a card a pass still takes longer than its launch.
"""


def chunk_tokens(vocabulary: int, device: str = "cpu", logit_bytes: int | None = None) -> int:
    """-> tokens of which all logits are held at once.

    `device`: its type. `logit_bytes`: what one tensor of their logits may take; at the least number of tokens it takes
    more than that.
    """
    on = "cpu" if device == "cpu" else "cuda"
    least, most = CHUNK_TOKENS[on]
    return min(most, max(least, (logit_bytes or CHUNK_BYTES[on]) // (LOGIT_BYTES * vocabulary)))


def block_rows(vocabulary: int, device: str = "cpu", bytes_each: int = LOGIT_BYTES) -> int:
    """-> rows of a chunk's logits that a loss works on at a time."""
    return max(1, BLOCK_BYTES["cpu" if device == "cpu" else "cuda"] // (bytes_each * vocabulary))
