"""How a dot shows what is known of its row: by shape, filling and lightness, so that it is seen in grey print too."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol, TypeAlias

from ablate.report import plot_style
from ablate.report.words import say
from ablate.results.paired import Contrast
from ablate.results.verdicts import Verdict

Standing: TypeAlias = Literal["ahead", "behind", "equivalent", "open", "alone"]
"""Of what is compared: its interval leaves out no difference, on the better or the worse side; lies within the band of
equivalence; does neither; or there is nothing to hold it against."""
DARK, BRIGHT = plot_style.PALETTE[0], plot_style.PALETTE[1]
LOOKS: dict[Standing, dict[str, Any]] = {
    "ahead": {"marker": "^", "color": DARK, "markerfacecolor": DARK},
    "behind": {"marker": "v", "color": BRIGHT, "markerfacecolor": BRIGHT},
    "equivalent": {"marker": "s", "color": plot_style.INK, "markerfacecolor": plot_style.INK},
    "open": {"marker": "o", "color": plot_style.MUTED, "markerfacecolor": plot_style.PAPER},
    "alone": {"marker": "o", "color": DARK, "markerfacecolor": DARK},
}
SIGNS: dict[Standing, str] = {"ahead": "\N{BLACK UP-POINTING TRIANGLE}", "behind": "\N{BLACK DOWN-POINTING TRIANGLE}"}
SIGNS |= {"equivalent": "\N{BLACK SQUARE}"}
"""The same marks in words that stand in a picture."""
SIZE = 6.5


class Compared(Protocol):
    """A finding of a row, or an effect."""

    @property
    def contrast(self) -> Contrast | None: ...

    @property
    def verdict(self) -> Verdict: ...

    @property
    def is_ahead(self) -> bool: ...


def standing(one: Compared | None) -> Standing:
    """-> by its verdict and its sign."""
    if one is None or one.contrast is None:
        return "alone"
    if one.verdict in ("better", "worse", "suggestive"):
        return "ahead" if one.is_ahead else "behind"
    return "equivalent" if one.verdict == "equivalent" else "open"


def look(one: Compared | None) -> dict[str, Any]:
    """-> marker, its size, and the colours of line and filling."""
    return {"markersize": SIZE, "markeredgewidth": 1.3, **LOOKS[standing(one)]}


def words(one: Compared | None) -> str:
    """-> what the mark says: `ahead of the control`."""
    return say(f"standing.{standing(one)}")


def marks(compared: Iterable[Compared | None]) -> Iterator[tuple[Any, str]]:
    """-> for a legend: a handle and its words for each mark that there is."""
    from matplotlib.lines import Line2D

    present = {standing(one) for one in compared}
    for one in (known for known in LOOKS if known in present):
        handle = Line2D([], [], linestyle="none", markersize=SIZE, markeredgewidth=1.3, **LOOKS[one])
        yield handle, say(f"standing.{one}")
