"""Figures for papers: as wide as a column or a page, in a serif of 8 points, as PDF, SVG and PGF."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ablate.report import picture_files, plot_style
from ablate.report.markup import tex
from ablate.report.styles import is_paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.25, 6.75
"""Inches: of a column of two, and of both with what is between them."""
MOST_OF_A_COLUMN = 5.3
"""Inches on a screen: a wider drawing takes both columns."""
STYLE: dict[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Serif"], "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "lines.linewidth": 1.2, "axes.linewidth": 0.6,
    "pdf.fonttype": 42, "svg.fonttype": "path", "pgf.rcfonts": False, "pgf.texsystem": "pdflatex",
}  # fmt: skip
"""STIX looks like the Times of most papers; TrueType outlines, for publishers refuse Type 3."""
RAISED = {letter: f"$^{{{plain}}}$" for letter, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True)}
SYMBOLS = RAISED | {
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{LEFTWARDS ARROW}": r"$\leftarrow$",
    "\N{BLACK UP-POINTING TRIANGLE}": r"$\triangle$",
    "\N{BLACK DOWN-POINTING TRIANGLE}": r"$\nabla$",
    "\N{BLACK SQUARE}": r"\rule{.6em}{.6em}",
}
"""What pdfLaTeX has no letter for."""


def files(name: str, draw: "Callable[[], Figure]") -> dict[str, bytes]:
    """-> paper/<name>.pdf, .svg and .pgf, below the report folder; none unless papers are asked for."""
    if not is_paper():
        return {}
    with plot_style.applied(STYLE):
        figure = draw()
        width = figure.get_figwidth()
        figure.set_figwidth(COLUMN if width <= MOST_OF_A_COLUMN else PAGE)
        _keep_small(figure)
        picture_files.lay_out(figure)
        _title_at_edge(figure)
        return {f"paper/{name}.{kind}": _saved(figure, name, kind) for kind in ("pdf", "svg", "pgf")}


def _keep_small(figure: "Figure") -> None:
    """What was drawn with a size of its own is no larger than the rest."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_fontsize() not in (8, 8.5):
            text.set_fontsize(8)


def _title_at_edge(figure: "Figure") -> None:
    """A title begins where its labels do, so that the width of a column is enough for it."""
    for ax in figure.axes:
        box = ax.get_position()
        ax.set_title(ax.get_title(loc="left"), x=-box.x0 / box.width)


def _saved(figure: "Figure", name: str, kind: str) -> bytes:
    import matplotlib as mpl

    if kind == "pgf":
        return _pgf(figure)
    data = io.BytesIO()
    undated = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "svg": {"Date": None, "Creator": None}}
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(data, format=kind, metadata=undated[kind])
    return data.getvalue()


def _pgf(figure: "Figure") -> bytes:
    r"""-> a picture that a document draws in its own font: `\input` it, after `\usepackage{pgf}`.

    Matplotlib asks LaTeX how wide texts are, but all that it needs the answer for is the layout, which is made by
    then: no LaTeX is needed here.
    """
    from matplotlib.backends import backend_pgf
    from matplotlib.backends.backend_agg import RendererAgg

    width, height = figure.get_size_inches()
    known = RendererAgg(width * figure.dpi, height * figure.dpi, figure.dpi)

    class Renderer(backend_pgf.RendererPgf):  # type: ignore[misc]
        def draw_text(self, gc: Any, x: float, y: float, s: str, *more: Any, **options: Any) -> None:
            super().draw_text(gc, x, y, _for_latex(s), *more, **options)

        def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
            size: tuple[float, float, float] = known.get_text_width_height_descent(s, prop, ismath)
            return size

    text = io.StringIO()
    text.write("\\begingroup\n\\makeatletter\n\\begin{pgfpicture}\n")
    text.write(f"\\pgfpathrectangle{{\\pgfpointorigin}}{{\\pgfqpoint{{{width:f}in}}{{{height:f}in}}}}\n")
    text.write("\\pgfusepath{use as bounding box}\n")
    figure.draw(Renderer(figure, text))
    text.write("\\end{pgfpicture}\n\\makeatother\n\\endgroup\n")
    return text.getvalue().encode()


def _for_latex(text: str) -> str:
    return "".join(SYMBOLS.get(letter, letter) for letter in tex(text))
