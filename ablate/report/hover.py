"""Tips of a figure in the page: a line, dot or bar under the pointer shows the label that it was drawn with."""

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_MATPLOTLIB = re.compile(r"_(child\d+|nolegend_)")
"""Labels of what was drawn without one."""
POINTS = 72
"""Units of an SVG in an inch."""


class Tip(NamedTuple):
    """One labelled line or patch of a figure."""

    name: str
    """Of its group in the SVG."""
    text: str
    is_curve: bool
    """Several points, between which the page's script tells values; else a dot, whose text says all."""


def tips(figure: "Figure") -> list[Tip]:
    """-> one for each line and patch that was drawn with a label, which names its group from now on."""
    lines = [line for ax in figure.axes for line in ax.get_lines()]
    curves = {id(line) for line in lines if np.size(line.get_xdata()) > 1}
    patches = [patch for ax in figure.axes for patch in ax.patches]
    labelled: list[Tip] = []
    for artist in (*lines, *patches):
        label = str(artist.get_label())
        if label and not OF_MATPLOTLIB.fullmatch(label):
            labelled.append(Tip(f"tip{len(labelled)}", label, id(artist) in curves))
            artist.set_gid(labelled[-1].name)
    return labelled


def titled(svg: str, tips: list[Tip]) -> str:
    """-> the same drawing, in which each line has its label as title, and groups have no id."""
    texts = {tip.name: tip for tip in tips}

    def with_title(group: re.Match[str]) -> str:
        tip = texts.get(group[1])
        if tip is None:
            return "<g>"
        kind = ' class="curve"' if tip.is_curve else ""
        return f"<g{kind}><title>{escape(tip.text)}</title>"

    return re.sub(r'<g id="([^"]*)">', with_title, svg)


def scales(figure: "Figure", tips: list[Tip]) -> str:
    """-> attributes by which the page's script turns places into values; none where there is no curve."""
    return " ".join(_scales(figure, figure.axes[0])) if any(tip.is_curve for tip in tips) else ""


def _scales(figure: "Figure", ax: "Axes") -> Iterator[str]:
    """`data-x="0 120 43.2 280.1 linear"`: values at the ends of an axis, and where they stand in the drawing."""
    width, height = (POINTS * inches for inches in figure.get_size_inches())
    box = ax.get_position()
    places = {"x": (box.x0 * width, box.x1 * width), "y": ((1 - box.y0) * height, (1 - box.y1) * height)}
    for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
        ends = " ".join(f"{value:.8g}" for value in (*axis.get_view_interval(), *places[name]))
        yield f'data-{name}="{ends} {axis.get_scale()}"'
    yield f'data-name="{escape(ax.get_xlabel())}"'
