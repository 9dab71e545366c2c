"""How a figure becomes files and a drawing in the page: equal pictures are equal bytes."""

import io
import re
from html import escape
from typing import TYPE_CHECKING

from ablate.report import hover
from ablate.report.plot_style import VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160
FONT = "DejaVuSans"
"""How ids of its letters begin."""


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
    """-> SVG to be put into a page: its colours are the page's variables, its ids are its own.

    A line that has a label tells it to a pointer.
    """
    import matplotlib as mpl

    raw, tips = io.StringIO(), hover.tips(figure)
    lay_out(figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return hover.titled(_inlined(raw.getvalue(), name, alt, hover.scales(figure, tips)), name, tips)


def lay_out(figure: "Figure") -> None:
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
