"""How figures look, on paper and on light and dark screens: colours, dashes, fonts, and labels that keep apart."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ablate.report.axis_numbers import log_ticks, number_texts
from ablate.results.question_scores import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a2a9e", "#6b4a1f")
"""Okabe and Ito's colours that show on white and on dark, and two more; style.css has each one's dark twin."""
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
INK, MUTED, GRID, PAPER = "#1f2933", "#667380", "#dde2e7", "#fffffe"
VARIABLES = {color: f"var(--c{number})" for number, color in enumerate(PALETTE)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
}
"""Colour -> the page's variable for it, which a dark screen sets anew."""
MOST_BEYOND = 1.5
"""Times what the values of an axis span: so far it goes beyond them for the ends of intervals."""
TEXT_BOX = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.2}
"""Behind words that stand in a panel: they hide its lines."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "text.parse_math": False,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.titlelocation": "left", "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titley": 1.0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.8, "axes.grid": True, "axes.axisbelow": True, "axes.unicode_minus": True, "axes.labelsize": 9,
    "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
    "legend.frameon": False, "legend.fontsize": 8.5,
    "savefig.facecolor": "white", "figure.facecolor": "none", "axes.facecolor": "none", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def applied(more: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Our style, whatever the user's matplotlibrc says; a missing glyph (an emoji, say) is a box, not a warning."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({**STYLE, **more})
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        yield


def panels(number: int, width: float, height: float, **options: Any) -> "tuple[Figure, Sequence[Axes]]":
    """-> a figure with panels side by side, each width x height inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * number, height))
    return figure, figure.subplots(1, number, squeeze=False, **options)[0]


def name_rows(ax: "Axes", labels: Sequence[str]) -> None:
    """A line of the panel for each label, the first on top."""
    ax.set_yticks(range(len(labels)), labels, linespacing=1.05)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def row_color(*, is_distilled: bool) -> str:
    """-> blue for distilled students, grey for reference models."""
    return PALETTE[0] if is_distilled else MUTED


def draw_dots(ax: "Axes", y: int, value: float, seeds: Sequence[float], *, is_distilled: bool, label: str) -> None:
    """A row's value, hollow for a reference model; its single seeds as small dots, where there are several."""
    color = row_color(is_distilled=is_distilled)
    if len(seeds) > 1:
        ax.plot(seeds, [y + 0.27] * len(seeds), marker=".", markersize=3.5, linestyle="none", color=INK, zorder=3)
    face = color if is_distilled else PAPER
    ax.plot(value, y, marker="o", markersize=6, color=color, markerfacecolor=face, zorder=3, label=label)


def limits(values: Iterable[Sequence[float]], ends: Iterable[Sequence[float]]) -> tuple[float, float]:
    """-> of an axis: all values in it, and ends of their intervals as far as these do not squeeze the values.

    Of two seeds an interval may be many times as wide as all that was measured.
    """
    inside = [value for some in values for value in some if math.isfinite(value)]
    wide = [*inside, *(end for some in ends for end in some if math.isfinite(end))]
    reach = MOST_BEYOND * (max(inside) - min(inside)) or max(wide) - min(wide) or 0.02
    low, high = max(min(wide), min(inside) - reach), min(max(wide), max(inside) + reach)
    room = 0.03 * (high - low) or 0.01  # where all rows are alike
    return low - room, high + room


def log_axis(ax: "Axes", name: str, values: Iterable[float]) -> None:
    """A logarithmic axis around some positive values: all its ticks plain numbers, or all powers of ten."""
    known = sorted(set(values))
    low, high = known[0] / 1.25, known[-1] * 1.25
    ticks = log_ticks(low, high)
    set_scale, set_limits = (ax.set_xscale, ax.set_xlim) if name == "x" else (ax.set_yscale, ax.set_ylim)
    set_scale("log")
    set_limits(low, high)
    axis = ax.xaxis if name == "x" else ax.yaxis
    axis.set_ticks(ticks, number_texts(ticks))
    axis.minorticks_off()


def show_share(axis: "Axis") -> None:
    """The ticks of an axis along which shares lie, or differences of shares, are in hundredths."""
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g}".replace("-", "\N{MINUS SIGN}"))


def line_style(number: int) -> dict[str, Any]:
    """-> colour and dash of the n-th line: no two of the first 32 alike."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number // len(PALETTE) % len(DASHES)]}


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """-> the positions nearest to the wanted ones, in their order, `gap` apart, within [low, high] where they fit.

    Least squares under an order: pool adjacent violators (Ayer et al. 1955), of the positions less their ranks' gaps.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # neighbours that would overlap stand around their common middle
    for rank, i in enumerate(order):
        blocks.append([wanted[i] - rank * gap])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    starts = [mean(block) for block in blocks for _ in block]
    most = max(low, high - (len(wanted) - 1) * gap)
    placed = [min(max(start, low), most) + rank * gap for rank, start in enumerate(starts)]
    return [placed[order.index(i)] for i in range(len(wanted))]
