"""Training curves drawn: one panel a measure, every training of an ablation a line of its own colour and dashes."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style
from ablate.report.exhibits.base import Piece
from ablate.report.exhibits.curves import MOST_POINTS, MOST_RAW, TITLES, Curve, banded, needs_tokens, thinned
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.words import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_END_LABEL, MOST_END_LABELS = 20, 7
"""Labels beside the lines up to here; more or longer ones go into a legend."""


@dataclass(frozen=True)
class Sheet:
    """What a figure of curves shows."""

    name: str
    """Of its file."""
    curves: Sequence[Curve]
    measures: Sequence[str]
    """A panel each."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Measure -> what its title says besides."""


def drawn(sheet: Sheet, title: str, caption: str) -> Piece:
    """-> the panels of the page, and figures/<name>.png and .svg with all of them."""
    panels = [
        Panel(f"{sheet.name}-{one}", partial(_panel, sheet, one), _alt(sheet.curves, one)) for one in sheet.measures
    ]
    return figure(
        sheet.name,
        partial(_picture, sheet),
        panels,
        title=title,
        caption=caption,
        paper=panels,
        legend=[] if is_labelled_at_ends(sheet.curves) else [_key(curve) for curve in _named(sheet.curves)],
    )


def is_labelled_at_ends(curves: Sequence[Curve]) -> bool:
    """Whether labels stand beside the lines; else they go into a legend."""
    named = _named(curves)
    return len(named) <= MOST_END_LABELS and all(len(curve.label) <= LONGEST_END_LABEL for curve in named)


def _named(curves: Sequence[Curve]) -> list[Curve]:
    """One curve a label: seeds share theirs."""
    return list({curve.label: curve for curve in curves}.values())


def _picture(sheet: Sheet) -> "Figure":
    is_ended = is_labelled_at_ends(sheet.curves)
    figure, axes = plot_style.panels(len(sheet.measures), 4.3 if is_ended else 3.9, 3.4)
    for ax, measure in zip(axes, sheet.measures, strict=True):
        _draw(ax, sheet, measure)
    if not is_ended:
        handles = [_handle(curve) for curve in _named(sheet.curves)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=plot_style.INK)
    return figure


def _panel(sheet: Sheet, measure: str) -> "Figure":
    figure, axes = plot_style.panels(1, 4.0, 3.3)
    _draw(axes[0], sheet, measure)
    return figure


def _draw(ax: "Axes", sheet: Sheet, measure: str) -> None:
    curves = sheet.curves
    shown = [curve for curve in curves if curve.has(measure)]
    is_tokens = needs_tokens(curves)
    unit, factor = _unit(curves) if is_tokens else ("optimizer step", 1.0)
    positions = {id(curve): array("d", (x / factor for x in curve.positions(is_tokens))) for curve in curves}
    right = max(xs[-1] for xs in positions.values())
    places = {id(curve): [positions[id(curve)][place] for place in curve.places[measure]] for curve in shown}
    is_seeded = len(shown) > len(_named(shown))
    for curve in shown:
        name = f"{curve.label}, seed {curve.cell.cell.seed}" if is_seeded else curve.label
        _draw_curve(ax, curve, measure, places[id(curve)], name, len(curves))
    ax.set_title(TITLES.get(measure, measure) + sheet.notes.get(measure, ""))
    ax.set_xlabel(unit)
    ax.set_xlim(0, right)
    if not shown:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", color=plot_style.MUTED)
        return
    held_out = _draw_held_out(ax, shown, measure, right)
    ends = [end for curve in shown for end in (min(curve.smooth[measure]), max(curve.smooth[measure]))]
    _fit(ax, [*ends, *held_out])
    if is_labelled_at_ends(curves):
        reach = {curve.label: places[id(curve)][-1] / right for curve in shown}
        _label_ends(ax, shown, measure, reach)


def _draw_curve(ax: "Axes", curve: Curve, measure: str, xs: Sequence[float], name: str, num: int) -> None:
    """`num`: of all trainings of the figure."""
    raw, smooth = curve.raw[measure], curve.smooth[measure]
    color = curve.style["color"]
    if num <= MOST_RAW and curve.beta and len(raw) <= MOST_POINTS:
        ax.plot(xs, raw, color=color, alpha=0.22, linewidth=0.8)
    elif num <= MOST_RAW and curve.beta:
        middles, lows, highs = banded(xs, raw)
        ax.fill_between(middles, lows, highs, color=color, alpha=0.15, linewidth=0)
    ax.plot(*thinned(xs, smooth, num), **curve.style, zorder=3, label=name)
    if curve.is_cut(measure):
        ax.plot(xs[-1], smooth[-1], marker="X", color=color, markersize=7, zorder=4)


def _draw_held_out(ax: "Axes", shown: Sequence[Curve], measure: str, right: float) -> list[float]:
    """-> the losses on rows that no training saw, each a diamond at the right edge, as high as its curve would be."""
    known = [(curve, curve.cell.held_out[measure]) for curve in shown if measure in curve.cell.held_out]
    for curve, value in known:
        label = f"{curve.label}, held out {value:.4f}"
        look: dict[str, Any] = {"color": curve.style["color"], "markerfacecolor": plot_style.PAPER, "clip_on": False}
        ax.plot(right, value, marker="D", markersize=5.5, linestyle="none", zorder=5, label=label, **look)
    return [value for _, value in known]


def _fit(ax: "Axes", values: Sequence[float]) -> None:
    """The smoothed curves fill the panel; a log scale where they span more than a factor of 20."""
    low, high = min(values), max(values)
    if low > 0 and high > 20 * low:
        plot_style.log_axis(ax, "y", (low, high))
        return
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    ax.set_ylim(low - room, high + room)


def _label_ends(ax: "Axes", shown: Sequence[Curve], measure: str, reach: Mapping[str, float]) -> None:
    """`reach`: how far to the right a curve goes; the label of one that ends early has no leader."""
    named = _named(shown)
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = [float(to_axes.transform((0, curve.smooth[measure][-1]))[1]) for curve in named]
    for curve, at, y in zip(named, ends, plot_style.spread(ends, 0.065, 0.0, 1.0), strict=True):
        color = curve.style["color"]
        if reach[curve.label] > 0.95:
            ax.plot([1.005, 1.03], [at, y], transform=ax.transAxes, color=color, linewidth=0.8, clip_on=False)
        ax.text(1.04, y, curve.label, transform=ax.transAxes, color=color, va="center", fontsize=8.5)


def _key(curve: Curve) -> tuple[str, str, str]:
    """-> for the page's legend: label, colour, dashes as SVG writes them."""
    dash = curve.style["linestyle"]
    return curve.label, plot_style.VARIABLES[curve.style["color"]], "" if dash == "-" else " ".join(map(str, dash[1]))


def _handle(curve: Curve) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=curve.label, **curve.style)


def _unit(curves: Sequence[Curve]) -> tuple[str, float]:
    most = max(curve.positions(True)[-1] for curve in curves)
    factor, word = (1e6, " (millions)") if most >= 2e6 else (1e3, " (thousands)") if most >= 2e3 else (1.0, "")
    return f"tokens in the loss{word}", factor


def _alt(curves: Sequence[Curve], measure: str) -> str:
    """The finding in words: from where to where each line goes."""
    name = TITLES.get(measure, measure)
    ends = [
        say("losses.alt_end", row=curve.label, first=f"{smooth[0]:.3f}", last=f"{smooth[-1]:.3f}")
        for curve in curves
        if curve.has(measure) and (smooth := curve.smooth[measure])
    ]
    return say("losses.alt", measure=name, ends=", ".join(ends)) if ends else say("losses.alt_none", measure=name)
