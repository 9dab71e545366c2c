"""What `ablate doctor` tells of one thing: its state, what was seen, and what to do about it."""

from typing import Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["ok", "warning", "problem"]


class Line(NamedTuple):
    """The state of one thing, for a reader."""

    state: State
    what: str
    text: str
    advice: str = ""

    def record(self) -> dict[str, str]:
        """As `ablate doctor --json` writes it."""
        return {"state": self.state, "what": self.what, "told": self.text, "advice": self.advice}
