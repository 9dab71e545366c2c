"""One text in the tokens of two tokenizers: the smallest spans that both cut out of it, aligned byte by byte."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.data.masks import num_common
from ablate.data.token_texts import BEGIN, END, TokenTexts
from ablate.data.tokens import TokenRows

# S spans

_GAP = "\ue002"
"""Between two stretches of tokens that count: the end of one is not the beginning of the next."""
_WORD = re.compile(r" ?[A-Za-z0-9\x80-\xff]+|[\s\S]")
"""With the space before it; letters of several bytes are of a word, too."""


class TokenSpan(NamedTuple):
    """Tokens of both that stand for the same bytes; numbers among the loss-bearing tokens of their row."""

    student_begin: int
    student_end: int
    teacher_begin: int
    teacher_end: int


class CountedText(NamedTuple):
    """What the tokens of a row that count stand for, laid end to end."""

    text: str
    begins: list[int]
    """Of each token, in `text`."""
    ends: list[int]
    numbers: list[int]
    """Of each token, among those that are predicted; -1 for a row's first, which never is."""


def counted_text(ids: Sequence[int], loss_mask: Sequence[int], tokens: TokenTexts) -> CountedText:
    """-> the text of a row's tokens that count.

    Spaces are left out where a stretch of them begins, and after an added token: some tokenizers write one there that
    is not in the text (SentencePiece's dummy prefix).
    """
    parts: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    counted = [index for index, counts in enumerate(loss_mask) if counts]
    drops_spaces = True
    for before, index in zip([None, *counted], counted, strict=False):
        if before is not None and index > before + 1:
            parts.append(_GAP)
            drops_spaces = True
        is_added = ids[index] in tokens.added
        text = _text_at(index, tokens.texts[ids[index]])
        text = text.lstrip(" ") if drops_spaces and not is_added else text
        drops_spaces = is_added or (drops_spaces and not text)
        begins.append((ends[-1] if ends else 0) + (parts[-1:] == [_GAP]))
        ends.append(begins[-1] + len(text))
        parts.append(text)
    first = int(counted[:1] == [0])
    return CountedText("".join(parts), begins, ends, list(range(-first, len(counted) - first)))


def _text_at(index: int, text: str) -> str:
    """-> nothing for a begin of sequence, which some models have and some have not, and some write as the end."""
    return "" if text == BEGIN or (index == 0 and text == END) else text


def aligned_spans(student: CountedText, teacher: CountedText) -> list[TokenSpan]:
    """-> the smallest spans of equal bytes that begin and end between two tokens of both, in their order.

    Where the texts differ (another template, a row cut short, a normalizer), those of their common parts. A token of
    no bytes is of the span after it. A span with a token that is never predicted is none.
    """
    spans = []
    for block in _common_parts(student.text, teacher.text):
        for begin, end in pairwise(_common_cuts(student, teacher, block)):
            ours = _tokens_between(student, block.student + begin, block.student + end)
            theirs = _tokens_between(teacher, block.teacher + begin, block.teacher + end)
            if min(*ours, *theirs) >= 0:
                spans.append(TokenSpan(*ours, *theirs))
    return spans


class _Block(NamedTuple):
    """The same text in both."""

    student: int
    """Where it begins."""
    teacher: int
    length: int


def _tokens_between(side: CountedText, begin: int, end: int) -> tuple[int, int]:
    """-> numbers of the tokens from one border to another; negative where there is none, or one never predicted."""
    first, last = bisect_left(side.begins, begin), bisect_left(side.begins, end)
    if first < last and side.numbers[first] < 0 and side.begins[first] == side.ends[first]:
        first += 1  # a begin of sequence
    return (side.numbers[first], side.numbers[last - 1] + 1) if first < last else (-1, -1)


def _common_cuts(student: CountedText, teacher: CountedText, block: _Block) -> list[int]:
    """-> where in the block both have a border between tokens."""
    cuts = _cuts_within(student, block.student, block.length) & _cuts_within(teacher, block.teacher, block.length)
    return sorted(cuts)


def _cuts_within(side: CountedText, begin: int, length: int) -> set[int]:
    return {cut - begin for cut in (*side.begins, *side.ends) if begin <= cut <= begin + length}


def _common_parts(a: str, b: str) -> Iterator[_Block]:
    """-> the parts that two texts share, in their order: mostly one, the whole."""
    head = num_common(a, b)
    most = min(len(a), len(b)) - head
    tail = next((n for n in range(most) if a[-1 - n] != b[-1 - n]), most)
    yield _Block(0, 0, head)
    if head + tail < max(len(a), len(b)):
        yield from _common_words(a[head : len(a) - tail], b[head : len(b) - tail], head)
    yield _Block(len(a) - tail, len(b) - tail, tail)


def _common_words(a: str, b: str, offset: int) -> Iterator[_Block]:
    words_a, words_b = _WORD.findall(a), _WORD.findall(b)
    places_a, places_b = _places(words_a), _places(words_b)
    for block in SequenceMatcher(None, words_a, words_b, autojunk=False).get_matching_blocks():
        begin, end = places_a[block.a], places_a[block.a + block.size]
        yield _Block(offset + begin, offset + places_b[block.b], end - begin)


def _places(words: Sequence[str]) -> list[int]:
    """-> where each word begins, and the end of the last."""
    return [0, *accumulate(map(len, words))]


class AlignedRows(NamedTuple):
    """The spans of many rows laid end to end. Those of row i are spans_S4[offsets[i]:offsets[i + 1]]."""

    spans_S4: NDArray[np.int32]
    """Each a `TokenSpan`."""
    offsets: NDArray[np.int64]

    def row(self, index: int) -> NDArray[np.int32]:
        return self.spans_S4[self.offsets[index] : self.offsets[index + 1]]


def align_rows(student: TokenRows, teacher: TokenRows, of_student: TokenTexts, of_teacher: TokenTexts) -> AlignedRows:
    """-> the spans of all rows, row i of one beside row i of the other."""
    by_row = [
        aligned_spans(_text_of(student, index, of_student), _text_of(teacher, index, of_teacher))
        for index in range(len(student))
    ]
    offsets = np.concatenate([[0], np.cumsum([len(spans) for spans in by_row], dtype=np.int64)]).astype(np.int64)
    flat = np.array([span for spans in by_row for span in spans], np.int32).reshape(-1, 4)
    return AlignedRows(flat, offsets)


def _text_of(rows: TokenRows, index: int, tokens: TokenTexts) -> CountedText:
    ids, loss_mask = rows.row(index)
    return counted_text(ids.tolist(), loss_mask.tolist(), tokens)


def num_loss_bytes(rows: TokenRows, tokens: TokenTexts) -> int:
    """-> bytes of UTF-8 that the loss-bearing tokens stand for; ends of sequence stand for none."""
    total = 0
    for index in range(len(rows)):
        side = _text_of(rows, index, tokens)
        predicted = (number for number, token in enumerate(side.numbers) if token >= 0)
        total += sum(len(side.text[side.begins[n] : side.ends[n]].replace(END, "")) for n in predicted)
    return total
