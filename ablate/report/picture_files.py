"""How a figure becomes files and a drawing in the page: equal pictures are equal bytes."""

import io
import re
import textwrap
from html import escape
from typing import TYPE_CHECKING

from ablate.report import hover
from ablate.report.plot_style import VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160
GAP = 3
"""Pixels of the layout to the right of a title."""
FEWEST_LETTERS = 6
"""Of its line."""
TAG = re.compile(r"<[^>]*>")
"""What is between two is text: words of a study, which nothing here may change."""
UNSEEN = re.compile(r'<path d="[^"]*" style="fill: none"/>|<g id="[^"]*"/>')
NO_TURN = re.compile(r' transform="rotate\(-?0[ )][^"]*"')
LONE = re.compile(r"<g>(<(?:path|use)[^>]*/>|<text[^>]*>[^<]*</text>|)</g>")
"""What needs no group around it."""
GRID_LINE = 'style="fill:none;stroke:var(--grid);stroke-width:0.7;stroke-linecap:round"'
BY_SHEET = "fill: var(--ink)"
"""The page's stylesheet gives it to text, and the font; it knows what a line of the grid is."""


def png_and_svg(figure: "Figure", name: str) -> dict[str, bytes]:
    """-> the picture as figures/<name>.png and .svg, below the report folder."""
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.BytesIO()
    lay_out(figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"figures/{name}.png": png.getvalue(), f"figures/{name}.svg": svg.getvalue()}


def inline_svg(figure: "Figure", name: str, alt: str) -> str:
    """-> SVG to be put into a page: its colours are the page's variables, its letters are text.

    A line that has a label tells it to a pointer. Its ids are hashes that are salted with its name, so a page's own.
    """
    import matplotlib as mpl

    raw, tips = io.StringIO(), hover.tips(figure)
    lay_out(figure)
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = hover.titled(_inlined(raw.getvalue(), alt, hover.scales(figure, tips)), tips)
    while (fewer := LONE.sub(r"\1", svg)) != svg:
        svg = fewer
    return svg


def lay_out(figure: "Figure") -> None:
    """Places the panels, once: a figure that keeps its layout engine is drawn twice for every file."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ConstrainedLayoutEngine().execute(figure)
    if _wrap_titles(figure):
        ConstrainedLayoutEngine().execute(figure)


def _wrap_titles(figure: "Figure") -> bool:
    """-> whether a title was wider than the room above its panel, and is on several lines now."""
    from matplotlib.text import Text

    wrapped = False
    for ax in figure.axes:
        box, title = ax.get_window_extent(), ax.get_title(loc="left")
        text = next(child for child in ax.get_children() if isinstance(child, Text) and child.get_text() == title)
        others = [other.get_window_extent().x0 for other in figure.axes]
        room = min([x for x in others if x > box.x0 + 1], default=figure.bbox.width) - GAP - box.x0
        letters = len(title)
        while letters > FEWEST_LETTERS and text.get_window_extent().width > room:
            letters -= 1
            text.set_text(textwrap.fill(title, letters))
            wrapped = True
    return wrapped


def _inlined(text: str, alt: str, attributes: str) -> str:
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = TAG.sub(lambda tag: _tag(tag[0]), re.sub(r">\s*\n\s*<", "><", text))
    head = re.search(r'viewBox="[^"]*"', text)
    box = head[0] if head else ""
    inside = text[text.index(">") + 1 :]
    about = f'{box} role="img" aria-label="{escape(alt)}" {attributes}'.rstrip()
    return f'<svg {about} xmlns="http://www.w3.org/2000/svg">{inside.strip()}'


def _tag(tag: str) -> str:
    """-> the same in fewer letters."""
    if UNSEEN.fullmatch(tag):
        return ""
    tag = NO_TURN.sub("", tag.replace("xlink:href=", "href="))
    tag = re.sub(r'\bd="([^"]*)"', lambda match: f'd="{_shortened(match[1])}"', tag)
    tag = re.sub(r'\b(x|y|transform)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), tag)
    for color, variable in VARIABLES.items():
        tag = tag.replace(color, variable)
    tag = re.sub(r'\bstyle="([^"]*)"', lambda match: _style(match[1], is_text=tag.startswith("<text")), tag)
    return re.sub(r' clip-path="[^"]*"', "", tag).replace(GRID_LINE, 'class="grid"') if GRID_LINE in tag else tag


def _style(text: str, *, is_text: bool) -> str:
    kept = [one for one in text.split("; ") if not one.startswith("font-family") and (one != BY_SHEET or not is_text)]
    return f'style="{";".join(one.replace(": ", ":") for one in kept)}"'


def _shortened(path: str) -> str:
    """-> the same line in fewer letters: hundredths of a point; of straight lines tenths, and no L where it goes on."""
    is_straight = not re.search("[CQ]", path)
    path = re.sub(r"(\.\d)\d+" if is_straight else r"(\.\d\d)\d+", r"\1", path)
    return re.sub(r"\s*\nL ", " ", path).strip() if is_straight else path
