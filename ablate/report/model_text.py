"""Text that a model wrote, as a page shows it: nothing in it hides, turns the line round or goes on for ever."""

import unicodedata
from itertools import groupby
from typing import NamedTuple

LONGEST = 600
LONGEST_START = 200
"""Of a prompt that is cut: its end, where the question is, is shown too."""
KEPT = frozenset("\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Line breaks, and what joins letters and emoji."""
HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode's categories of control characters, of marks for direction and other formatting, private letters, halves of
letters, and the two separators that break a line as none else does."""


class Part(NamedTuple):
    """A stretch of text."""

    text: str
    is_code: bool
    """It stands for characters that would not be seen: U+202E."""


def parts(text: str) -> list[Part]:
    """-> the text in stretches, in which every character is seen."""
    return [
        Part("".join(map(_code, letters)) if is_hidden else "".join(letters), is_hidden)
        for is_hidden, letters in groupby(text, _is_hidden)
    ]


def visible(text: str) -> str:
    """-> the text with a code in brackets for every character that would not be seen."""
    return "".join(part.text for part in parts(text))


def shortened(text: str) -> tuple[str, str]:
    """-> an answer's beginning, and the words that say how much more there is."""
    return (text, "") if len(text) <= LONGEST else (text[:LONGEST], f"{len(text) - LONGEST:,} more characters")


def shortened_prompt(text: str) -> str:
    """-> a prompt, its middle left out where it is long, with the words that say so."""
    if len(text) <= LONGEST:
        return text
    left_out = f" [… {len(text) - LONGEST:,} characters left out …] "
    return text[:LONGEST_START] + left_out + text[LONGEST_START - LONGEST :]


def _is_hidden(letter: str) -> bool:
    return letter not in KEPT and (unicodedata.category(letter) in HIDDEN or ord(letter) & 0xFFFE == 0xFFFE)


def _code(letter: str) -> str:
    return f"⟨U+{ord(letter):04X}⟩"


def one_line(text: str) -> str:
    """-> visible text on one line: a mark where it breaks."""
    return " ⏎ ".join(visible(text).split("\n"))
