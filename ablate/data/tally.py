"""What a reader should know of how rows were rendered, counted."""

from collections import Counter
from typing import NamedTuple


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
        sentences = {
            f"rows became {self.into} rows of tokens, one for each answer, as the model would be asked: the chat"
            " template renders a turn in another way once more turns follow (data.answers: last trains the last"
            " alone)": self.several,
            "rows have `tools`, which the student's chat template leaves out": self.tools,
            "answers have `tool_calls`, which the student's chat template leaves out; those of nothing else do not"
            " count": self.calls,
            "answers have text beside their `tool_calls`, which the chat template leaves out": self.beside_calls,
            "answers have thoughts (`reasoning_content`), which the chat template leaves out": self.thoughts,
            "rows hold special tokens of the tokenizer as text, which become those tokens": self.special,
            "rows hold text that the tokenizer has no token for, and were given its unknown token": self.unknown,
            "answers have weight 0 and do not count": self.unweighted,
        }
        roles = {f"turns of role {role} are left out by the chat template": n for role, n in self.left_out.items()}
        return [f"{number} {sentence}" for sentence, number in (sentences | roles).items() if number]


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
