"""What a reader should know of how rows were rendered, counted."""

from collections import Counter
from typing import Final, NamedTuple


class Rendering(NamedTuple):
    """Rows, answers and turns that are not in the text as a reader may think; each count has its sentence below."""

    several: int = 0
    """Rows that became several rows of tokens."""
    into: int = 0
    """Rows of tokens that they became."""
    tools: int = 0
    calls: int = 0
    beside_calls: int = 0
    thoughts: int = 0
    special: int = 0
    unknown: int = 0
    unweighted: int = 0
    left_out: dict[str, int] = {}
    """Role -> turns of it that the template leaves out."""

    def notes(self) -> list[str]:
        """-> a sentence for each count that is not zero."""
        lines = [f"{number} {words[number != 1]}" for name, words in WORDS.items() if (number := getattr(self, name))]
        if self.several:
            lines.insert(0, f"{self.several} {'row' if self.several == 1 else 'rows'} {_BECAME.format(self.into)}")
        for role, number in self.left_out.items():
            turns = "turn of role {} is" if number == 1 else "turns of role {} are"
            lines.append(f"{number} {turns.format(role)} left out by the chat template")
        return lines


_BECAME: Final = (
    "became {} rows of tokens, one for each answer, as the model would be asked: the chat template renders a turn in"
    " another way once more turns follow (data.answers: last trains the last alone)"
)
WORDS: Final = {
    "tools": (
        "row has `tools`, which the student's chat template leaves out",
        "rows have `tools`, which the student's chat template leaves out",
    ),
    "calls": (
        "answer has `tool_calls`, which the student's chat template leaves out; one of nothing else does not count",
        "answers have `tool_calls`, which the student's chat template leaves out; those of nothing else do not count",
    ),
    "beside_calls": (
        "answer has text beside its `tool_calls`, which the chat template leaves out",
        "answers have text beside their `tool_calls`, which the chat template leaves out",
    ),
    "thoughts": (
        "answer has thoughts (`reasoning_content`), which the chat template leaves out",
        "answers have thoughts (`reasoning_content`), which the chat template leaves out",
    ),
    "special": (
        "row holds special tokens of the tokenizer as text, which become those tokens",
        "rows hold special tokens of the tokenizer as text, which become those tokens",
    ),
    "unknown": (
        "row holds text that the tokenizer has no token for, and was given its unknown token",
        "rows hold text that the tokenizer has no token for, and were given its unknown token",
    ),
    "unweighted": ("answer has weight 0 and does not count", "answers have weight 0 and do not count"),
}
"""Count -> what is said of one, and of several."""


class Tally:
    """Counts while rows are rendered."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Counts one of the fields of `Rendering`."""
        self._counts[name] += number

    def add_left_out(self, role: str) -> None:
        self._left_out[role] += 1

    def counts(self) -> Rendering:
        return Rendering(**self._counts, left_out=dict(self._left_out))
