"""Rows of tokens as a reader sees them: decoded, in the parts that count in the loss and those that do not."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows

MOST_BINS = 12


class Piece(NamedTuple):
    """Neighbouring tokens of a row that all count in the loss, or do not."""

    text: str
    counts: bool


class Sample(NamedTuple):
    """One row."""

    number: int
    """Among the rows of tokens, from 1."""
    num_tokens: int
    num_counting: int
    """The first token of a row is never predicted."""
    is_cut: bool
    """It has as many tokens as a row may have, and may have lost its end."""
    pieces: tuple[Piece, ...]


class Bin(NamedTuple):
    """How many rows have `shortest` to `longest` tokens."""

    shortest: int
    longest: int
    rows: int


def samples(rows: TokenRows, tokenizer: Any, most: int, max_length: int | None) -> list[Sample]:
    """-> the first rows."""
    parts = ((array.tolist() for array in rows.row(index)) for index in range(min(most, len(rows))))
    token_rows = [TokenRow(ids, [bool(counts) for counts in mask]) for ids, mask in parts]
    return [sample(row, number, tokenizer, max_length) for number, row in enumerate(token_rows, 1)]


def sample(row: TokenRow, number: int, tokenizer: Any, max_length: int | None) -> Sample:
    """-> a row, decoded."""
    is_cut = max_length is not None and len(row.ids) >= max_length
    return Sample(number, len(row.ids), sum(row.loss_mask[1:]), is_cut, tuple(_pieces(row, tokenizer)))


def _pieces(row: TokenRow, tokenizer: Any) -> Iterator[Piece]:
    begin, before = 0, ""
    for counts, group in groupby(row.loss_mask):
        end = begin + len(list(group))
        after = _decoded(tokenizer, row.ids[:end])
        # as a part of the whole: some decoders drop a first space
        text = after[len(before) :] if after.startswith(before) else _decoded(tokenizer, row.ids[begin:end])
        yield Piece(text, counts)
        begin, before = end, after


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def histogram(lengths: Sequence[int]) -> list[Bin]:
    """-> the lengths of rows in bins of one width, 1, 2 or 5 times a power of ten."""
    if not lengths:
        return []
    width = next(w for w in _widths() if (max(lengths) // w) - (min(lengths) // w) < MOST_BINS)
    first, last = min(lengths) // width, max(lengths) // width
    numbers = [0] * (last - first + 1)
    for length in lengths:
        numbers[length // width - first] += 1
    return [Bin((first + i) * width, (first + i + 1) * width - 1, number) for i, number in enumerate(numbers)]


def _widths() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10
