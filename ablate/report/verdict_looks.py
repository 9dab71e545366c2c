"""How a dot shows what is known of its row: by shape, filling and lightness, so that it is seen in grey print too."""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from ablate.report import plot_style
from ablate.results.verdicts import Finding

Standing: TypeAlias = Literal["ahead", "behind", "equivalent", "open", "alone"]
"""Of a row beside what it is held against: its interval excludes no difference, on the better or the worse side; lies
within the band; says neither; or there is nothing to hold it against."""
DARK, BRIGHT = plot_style.PALETTE[0], plot_style.PALETTE[1]
LOOKS: dict[Standing, dict[str, Any]] = {
    "ahead": {"marker": "^", "color": DARK, "markerfacecolor": DARK},
    "behind": {"marker": "v", "color": BRIGHT, "markerfacecolor": BRIGHT},
    "equivalent": {"marker": "s", "color": plot_style.INK, "markerfacecolor": plot_style.INK},
    "open": {"marker": "o", "color": plot_style.MUTED, "markerfacecolor": plot_style.PAPER},
    "alone": {"marker": "o", "color": DARK, "markerfacecolor": DARK},
}
SIZE = 6.5


def standing(finding: Finding | None) -> Standing:
    """-> by its verdict and its sign."""
    if finding is None or finding.contrast is None:
        return "alone"
    if finding.verdict in ("better", "worse", "suggestive"):
        return "ahead" if finding.is_ahead else "behind"
    return "equivalent" if finding.verdict == "equivalent" else "open"


def look(finding: Finding | None) -> dict[str, Any]:
    """-> marker, its size, and the colours of line and filling."""
    return {"markersize": SIZE, "markeredgewidth": 1.3, **LOOKS[standing(finding)]}


def in_order(standings: Iterable[Standing]) -> list[Standing]:
    """-> those that there are, each once, as a legend has them."""
    present = set(standings)
    return [one for one in LOOKS if one in present]
