"""A text with the parts of it that count in the loss, as tokens and a mask that are proven by decoding."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ablate.core.errors import StageError


class TokenRow(NamedTuple):
    """One row as tokens; `loss_mask[i]` says whether predicting `ids[i]` counts."""

    ids: list[int]
    loss_mask: list[bool]


class Span(NamedTuple):
    """Characters `begin` up to `end` of a text."""

    begin: int
    end: int


class Marked(NamedTuple):
    """A text and the parts of it that count, in their order; without parts nothing counts."""

    text: str
    spans: tuple[Span, ...]


class Encoded(NamedTuple):
    """Tokens, each with the characters of the text that it stands for: none, for what the tokenizer adds."""

    ids: list[int]
    spans: list[Span]


def everything(tokenizer: Any, text: str, *, special: bool = False) -> TokenRow:
    """-> the text's tokens, all of which count."""
    ids = _ids(tokenizer, text, special=special)
    return TokenRow(ids, [True] * len(ids))


def masked(tokenizer: Any, marked: Marked, *, special: bool = False, is_cut: bool = False) -> TokenRow:
    """-> the text's tokens; one counts where it holds a character of a span.

    With `is_cut`, where a token would hold both sides of a span's border, the text is cut there into two that are
    tokenised alone, as when a model is asked with a prompt that is a text of its own; a tokenizer for which that is
    another text (SentencePiece's leading space) keeps the token.
    Raises StageError where the counted tokens, decoded, are not the spans' text.
    """
    if not marked.spans:
        ids = _ids(tokenizer, marked.text, special=special)
        return TokenRow(ids, [False] * len(ids))
    if not getattr(tokenizer, "is_fast", False):
        return _masked_by_beginnings(tokenizer, marked, special=special)
    encoded = _encode(tokenizer, marked.text, special=special)
    if is_cut:
        encoded = _cut_at_borders(tokenizer, marked, encoded)
    mask = [False] * len(encoded.ids)
    added = tokenizer.added_tokens_decoder
    for span in marked.spans:
        first, last = _tokens_of(encoded, span)
        if last > first and encoded.spans[first].begin < span.begin and encoded.ids[first] in added:
            first += 1  # a special token that swallows the spaces after it is the template's all the same
        mask[first:last] = [True] * (last - first)
        _require_decoded(tokenizer, encoded, range(first, last), marked.text, span)
    return TokenRow(encoded.ids, mask)


def _tokens_of(encoded: Encoded, span: Span) -> tuple[int, int]:
    """-> the first token that holds a character of the span, and the one after the last."""
    first = bisect_right(encoded.spans, span.begin, key=lambda token: max(token.end, token.begin + 1))
    return first, max(first, bisect_left(encoded.spans, span.end, key=lambda token: token.begin))


def _encode(tokenizer: Any, text: str, *, special: bool, offset: int = 0) -> Encoded:
    """-> tokens, `offset` characters on; a space that offsets leave out (`trim_offsets`) is of the token after it."""
    encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    spans, reached = [], offset
    for begin, end in encoding["offset_mapping"]:
        if begin == end:
            spans.append(Span(max(reached, begin + offset), max(reached, begin + offset)))
        else:
            spans.append(Span(min(begin + offset, reached), end + offset))
            reached = max(reached, end + offset)
    return Encoded(list(encoding["input_ids"]), spans)


def _cut_at_borders(tokenizer: Any, marked: Marked, whole: Encoded) -> Encoded:
    borders = sorted({border for span in marked.spans for border in span if 0 < border < len(marked.text)})
    cuts = [border for border in borders if _is_inside_a_token(whole, border)]
    if not cuts:
        return whole
    parts = [
        _encode(tokenizer, marked.text[begin:end], special=False, offset=begin)
        for begin, end in zip([0, *cuts], [*cuts, len(marked.text)], strict=True)
    ]
    joined = Encoded([i for part in parts for i in part.ids], [span for part in parts for span in part.spans])
    is_same_text = _decode(tokenizer, joined.ids) in (_decode(tokenizer, whole.ids), marked.text)
    return joined if is_same_text else whole


def _is_inside_a_token(encoded: Encoded, border: int) -> bool:
    first, _ = _tokens_of(encoded, Span(border, border))
    return first < len(encoded.ids) and encoded.spans[first].begin < border


def _masked_by_beginnings(tokenizer: Any, marked: Marked, *, special: bool) -> TokenRow:
    """For a tokenizer in Python, which tells no characters: what the text up to a border has in common with the whole.

    What differs there, a token merged across the border, is taken for the part after it.
    """
    ids = _ids(tokenizer, marked.text, special=special)
    mask = [False] * len(ids)
    for span in marked.spans:
        first = num_common(_ids(tokenizer, marked.text[: span.begin], special=special), ids) if span.begin else 0
        before_end = _ids(tokenizer, marked.text[: span.end], special=special)
        last = len(ids) if span.end >= len(marked.text) else num_common(before_end, ids)
        mask[first:last] = [True] * (last - first)
        added = _num_special_at_end(tokenizer, ids[first:last]) if span.end > len(marked.text) else 0
        _require_same(tokenizer, ids[first : last - added], marked.text[span.begin : span.end])
    return TokenRow(ids, mask)


def _num_special_at_end(tokenizer: Any, ids: Sequence[int]) -> int:
    """-> how many special tokens end a text that a tokenizer adds some to."""
    return next((n for n, i in enumerate(reversed(ids)) if i not in tokenizer.all_special_ids), len(ids))


def _require_decoded(tokenizer: Any, encoded: Encoded, tokens: range, text: str, span: Span) -> None:
    """Raises StageError unless tokens are the span's text, and no more than what they share with its neighbours."""
    own = [i for i in tokens if encoded.spans[i].begin < encoded.spans[i].end]  # not those that the tokenizer adds
    held = [encoded.spans[i] for i in own] or [span]
    begin, end = min(span.begin, held[0].begin), max(span.end, held[-1].end)
    _require_same(tokenizer, [encoded.ids[i] for i in own], text[begin:end])


def _require_same(tokenizer: Any, ids: Sequence[int], text: str) -> None:
    decoded = _decode(tokenizer, ids)
    if decoded == text or _bare(decoded) == _bare(text):
        return
    alone = _decode(tokenizer, _ids(tokenizer, text))  # a tokenizer that lowers letters, or does not know them all
    if _bare(alone) != _bare(decoded):
        raise StageError(
            f"the loss mask was to hold {_short(text)} and holds, decoded, {_short(decoded)}: this tokenizer does not "
            "say which characters its tokens are of (a normalizer or a decoder of its own?); train_on_prompt: true"
            " needs no mask"
        )


def _bare(text: str) -> str:
    """-> the text without spaces, in one form of what Unicode writes in several."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}")


def num_common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """-> length of the longest common beginning."""
    if a == b[: len(a)]:  # mostly, and a thousand times faster
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def complement(spans: Iterable[Span], length: int) -> tuple[Span, ...]:
    """-> the parts of a text of so many characters that lie in none of the spans."""
    spans = sorted(spans)
    borders = [0, *(border for span in spans for border in span), length]
    between = zip(borders[::2], borders[1::2], strict=True)
    return tuple(Span(begin, end) for begin, end in between if begin < end)


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
