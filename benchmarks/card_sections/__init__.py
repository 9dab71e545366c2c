"""What `benchmarks.card` measures of one card, a module each; each is measured in a process of its own."""

import importlib
from typing import Any, NamedTuple, Protocol

from benchmarks.card_sections.sizes import Card


class Module(Protocol):
    """A section: measured in its own process, shown in the one that started it."""

    def measure(self, card: Card) -> dict[str, Any]:
        """-> what JSON can hold."""

    def show(self, measured: dict[str, Any]) -> str:
        """-> markdown."""


class Section(NamedTuple):
    """One question about a card."""

    title: str
    seconds: float
    """At most: then its process is ended."""

    @staticmethod
    def find(name: str) -> Module:
        module: Any = importlib.import_module(f"benchmarks.card_sections.{name}")
        return module  # type: ignore[no-any-return]


SECTIONS = {
    "profile": Section("Where a step's time goes", 110),
    "pairs": Section("Each change on and off", 170),
    "loss_memory": Section("Memory against the estimate", 70),
    "loading": Section("Loading a model", 60),
    "evaluation": Section("Evaluation beside lm-eval's own class", 70),
    "peers": Section("Beside torchtune, TRL and Liger", 70),
    "sharing": Section("Four trainings on one card", 50),
}
"""Together at most the ten minutes for which a card is lent."""
