"""What the views share: a console, a colour for each state, lists in words."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "blocked": "red",
    "damaged": "red",
    "diverged": "magenta",
}

TROUBLE = ("failed", "damaged")
"""States whose reasons are printed at length."""


def console_of_stdout() -> Console:
    """As wide as the terminal; where there is none, as wide as the text."""
    return Console() if sys.stdout.isatty() else Console(width=240)


def styled(word: str) -> str:
    """-> a state's word in its colour, as rich markup."""
    return f"[{STYLES.get(word, 'default')}]{word}[/]"


def print_plainly(console: Console, text: str) -> None:
    """Prints a text as it is: no markup, nothing highlighted, no line broken."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def printable(text: str) -> str:
    """-> the text with what would move a terminal's cursor, or change its colours, written out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def counted(words: Sequence[str]) -> str:
    """-> "3 done, 1 failed", in the order of their first."""
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings -> {dotted path: value}."""
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[str, Any] = {}
    for name, item in value.items():
        leaves |= flat(item, f"{path}.{name}" if path else name)
    return leaves
