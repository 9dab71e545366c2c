"""How figures look, and how one becomes a file: equal pictures are equal bytes, for paper, light and dark screens."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from ablate.report.exhibits import hover
from ablate.results.question_scores import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b5ea7", "#8c564b")
"""Okabe and Ito's colours that show on white and on dark, and two more; style.css has each one's dark twin."""
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
INK, MUTED, GRID, PAPER = "#1f2933", "#667380", "#dde2e7", "#fffffe"
VARIABLES = {color: f"var(--c{number})" for number, color in enumerate(PALETTE)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
}
PNG_DPI = 160
FONT = "DejaVuSans"
"""How ids of its letters begin."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "text.parse_math": False,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.titlelocation": "left", "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titley": 1.0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.8, "axes.grid": True, "axes.axisbelow": True, "axes.unicode_minus": True, "axes.labelsize": 9,
    "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round", "legend.frameon": False, "legend.fontsize": 8.5,
    "savefig.facecolor": "white", "figure.facecolor": "none", "axes.facecolor": "none", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """Our style, whatever the user's matplotlibrc says; a missing glyph (an emoji, say) is a box, not a warning."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
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


def style_of(number: int) -> dict[str, Any]:
    """-> colour and dash of the n-th line: no two of the first 32 alike."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number // len(PALETTE) % len(DASHES)]}


def files(figure: "Figure", name: str) -> dict[str, bytes]:
    """-> the picture as figures/<name>.png and .svg, below the report folder."""
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.BytesIO()
    _lay_out(figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"figures/{name}.png": png.getvalue(), f"figures/{name}.svg": svg.getvalue()}


def svg(figure: "Figure", name: str, alt: str) -> str:
    """-> SVG to be put into a page: its colours are the page's variables, its ids are its own.

    A line that has a label tells it to a pointer.
    """
    import matplotlib as mpl

    raw, tips = io.StringIO(), hover.tips(figure)
    _lay_out(figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return hover.titled(_inlined(raw.getvalue(), name, alt, hover.scales(figure, tips)), name, tips)


def _lay_out(figure: "Figure") -> None:
    """Places the panels, once: a figure that keeps its layout engine is drawn twice for every file."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ConstrainedLayoutEngine().execute(figure)


def _inlined(text: str, name: str, alt: str, attributes: str) -> str:
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = text.replace(f"{name}-{FONT}", FONT)  # letters are the same in every figure
    text = re.sub(r'\bd="([^"]*)"', lambda match: f'd="{_shortened(match[1])}"', text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    head = re.search(r'viewBox="[^"]*"', text)
    box = head[0] if head else ""
    inside = text[text.index(">") + 1 :]
    about = f'{box} role="img" aria-label="{escape(alt)}" {attributes}'.rstrip()
    return f'<svg {about} xmlns="http://www.w3.org/2000/svg">{inside.strip()}'


def _shortened(path: str) -> str:
    """-> the same line in fewer letters: hundredths of a point; of straight lines tenths, and no L where it goes on."""
    is_straight = not re.search("[CQ]", path)
    path = re.sub(r"(\.\d)\d+" if is_straight else r"(\.\d\d)\d+", r"\1", path)
    return re.sub(r"\s*\nL ", " ", path).strip() if is_straight else path


def with_each_letter_once(page: str) -> str:
    """-> a page whose figures share the outlines of their letters, a third of its size otherwise."""
    seen: set[str] = set()

    def first(match: re.Match[str]) -> str:
        is_known = match[1] in seen
        seen.add(match[1])
        return "" if is_known else match[0]

    return re.sub(rf'\s*<path id="({FONT}[^"]*)"[^>]*/>', first, page)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """-> the positions nearest to the wanted ones, in their order, `gap` apart, within [low, high] where they fit."""
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
