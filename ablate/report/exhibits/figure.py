"""A figure of the report: its panels in the page, one picture of all of them in files."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ablate.report import paper_figures, picture_files, plot_style
from ablate.report.exhibits.base import Piece
from ablate.report.markup import render
from ablate.results.collect import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """One drawing of the page."""

    name: str
    """What the ids in it begin with."""
    draw: "Callable[[], Figure]"
    alt: str
    """The finding in words."""


def numbered(
    name: str, metrics: Sequence[Metric], draw: "Callable[[Metric], Figure]", alt: Callable[[Metric], str]
) -> list[Panel]:
    """-> a panel for each metric."""
    return [Panel(f"{name}-{number}", partial(draw, metric), alt(metric)) for number, metric in enumerate(metrics)]


def figure(
    name: str,
    picture: "Callable[[], Figure]",
    panels: Sequence[Panel],
    *,
    title: str,
    caption: str,
    legend: Sequence[tuple[str, str, str]] = (),
    is_wide: bool = False,
    fold: str = "",
    paper: Sequence[Panel] = (),
) -> Piece:
    """-> the piece, with figures/<name>.png and .svg. `legend`: label, colour, dashes as SVG writes them.

    `fold`: as of a `Piece`. `paper`: panels that papers get one by one, where they are asked for.
    """
    with plot_style.applied():
        files = picture_files.png_and_svg(picture(), name)
        drawn = [picture_files.inline_svg(panel.draw(), panel.name, panel.alt) for panel in panels]
    for panel in paper:
        files |= paper_figures.files(panel.name, panel.draw)
    values = {
        "title": title,
        "caption": caption,
        "panels": drawn,
        "legend": legend,
        "is_wide": is_wide,
        "alt": " ".join(panel.alt for panel in panels),
        "file": f"figures/{name}.png",
    }
    return Piece(render("figure.html", **values), render("figure.md", **values), files, fold)
