"""Labels cut short together: what tells one from the others stays, what they share may go."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

TOKEN_END = re.compile(r"[,;/(\s]+")
REACHES = (24, 8, 2)
"""How much of a long word is shown after the letter that tells it apart, as far as there is room."""
STEPS_BACK = 12
"""A word is shown from its beginning where that is no further before the letter that tells it apart."""
MOST_WASTED = 9
"""Of the room for a label's beginning, so that it ends with a word."""


def shortened(labels: Sequence[str], length: int) -> list[str]:
    """-> the labels, each on one line and of `length` letters at most, unless what tells them apart needs more.

    Equal labels stay equal, different ones different. All of them are shown from the first letter on, and from each
    letter at which one departs from another; an ellipsis stands for the rest. What is shown of two labels before they
    part is therefore the same, and there they differ.
    """
    texts = [" ".join(label.split()) for label in labels]
    if all(len(text) <= length for text in texts):
        return texts
    known = sorted(set(texts))
    partings = dict(zip(known, _partings(known), strict=True))
    for reach, head in product(REACHES, range(length, -1, -1)):
        cut = {text: _cut(text, _Shown(partings[text], head, reach), length) for text in known}
        if all(len(text) <= length for text in cut.values()) and len(set(cut.values())) == len(known):
            return [cut[text] for text in texts]
    cut = {text: _cut(text, _Shown(partings[text], 0, REACHES[-1]), length) for text in known}
    return [cut[text] for text in texts] if len(set(cut.values())) == len(known) else texts


def on_lines(labels: Sequence[str], width: int, most: int = 2) -> list[str]:
    """-> the labels on lines of some letters, two at most, as far as that shows what tells them apart."""
    for length in range(most * width, width, -4):
        wrapped = [textwrap.wrap(label, width) for label in shortened(labels, length)]
        if all(len(lines) <= most for lines in wrapped):
            break
    return ["\n".join(lines) for lines in wrapped]


def one_line(label: str) -> str:
    """-> the whole of it, for whoever hovers over it or has it read aloud."""
    return " ".join(label.split())


class _Shown(NamedTuple):
    """What is shown of one label."""

    partings: frozenset[int]
    """Where it departs from another."""
    head: int
    reach: int


def _partings(texts: Sequence[str]) -> Iterator[frozenset[int]]:
    """-> of each the lengths of the beginnings that it shares with others; of sorted texts, each another."""
    shared = [_num_alike(one, other) for one, other in pairwise(texts)]
    for number in range(len(texts)):
        before, after = shared[:number][::-1], shared[number:]
        yield frozenset([*_minima(before), *_minima(after)])


def _minima(values: Sequence[int]) -> Iterator[int]:
    """-> the running minima."""
    for number, value in enumerate(values):
        if value == min(values[: number + 1]):
            yield value


def _num_alike(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _cut(text: str, shown: _Shown, length: int) -> str:
    """-> the text where it fits, else only what is to be shown of it."""
    if len(text) <= length:
        return text
    windows = sorted([(0, _whole_words(text, shown.head)), *(_window(text, at, shown.reach) for at in shown.partings)])
    pieces, end = [], 0
    for start, stop in windows:
        if start - end > 1:
            pieces.append("…")
        else:
            start = end
        pieces.append(text[max(start, end) : stop])
        end = max(end, stop)
    return "".join([*pieces, _tail(text[end:], length - sum(map(len, pieces)) - 1)])


def _tail(rest: str, room: int) -> str:
    """-> what follows the last window, as far as there is room beside the ellipsis: there no two labels need differ."""
    if len(rest) <= 1:
        return rest
    return f"{rest[: _whole_words(rest, room)]}…" if room > 0 else "…"


def _whole_words(text: str, length: int) -> int:
    """-> the last end of a word by then; where that would waste room, what was asked for."""
    last = max((match.start() for match in TOKEN_END.finditer(text, 0, length + 1)), default=0)
    return last if length - last <= MOST_WASTED else length


def _window(text: str, place: int, reach: int) -> tuple[int, int]:
    """-> the word around a place with the space before it, but no more of it than is asked for."""
    start = max((match.end() for match in TOKEN_END.finditer(text, 0, place)), default=0)
    if place - start > STEPS_BACK:
        start = place
    start -= text[start - 1 : start] == " "
    after = TOKEN_END.search(text, place + 1)
    end = after.start() if after else len(text)
    return start, min(end, place + reach)
