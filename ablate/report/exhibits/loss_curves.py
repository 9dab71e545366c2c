"""The tutorial's three panels: kd_loss, class_loss and loss of every training of an ablation."""

from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece, joined
from ablate.report.exhibits.curves import (
    LOSSES,
    MOST_POINTS,
    Curve,
    banded,
    betas_text,
    needs_tokens,
    read_curve,
    thinned,
)
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.loss_table import loss_table
from ablate.report.formatting import recipe_label, short
from ablate.results.collect import AblationResult, Results
from ablate.study.schema import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_END_LABEL, MOST_END_LABELS = 20, 7
"""Labels beside the lines up to here; more or longer ones go into a legend."""
REFERENCE_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (8, 3)), (0, (4, 2, 1, 2)))
"""One a pair."""


@EXHIBITS.register("losses", order=110)
def loss_curves(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-losses.png, and the three panels of the page."""
    curves = curves_of(ablation, results.study.pairs)
    if not any(not curve.is_reference for curve in curves):
        return None
    name = f"{ablation.name}-losses"
    drawn = figure(
        name,
        partial(_picture, ablation, curves),
        [Panel(f"{name}-{loss}", partial(_panel, ablation, curves, loss), _alt(curves, loss)) for loss in LOSSES],
        title=f"Losses: {ablation.title}",
        caption=caption(ablation, curves),
        legend=[] if is_labelled_at_ends(curves) else [_key(curve) for curve in _named(curves)],
    )
    return joined(drawn, loss_table(ablation.name, ablation.title, curves))


def curves_of(ablation: AblationResult, pairs: Mapping[str, Pair]) -> list[Curve]:
    """-> a curve for every distillation that has a step, and dashed the fine-tuned students, each pair its own."""
    distilled = [row for row in ablation.rows if row.row.model == "distill"]
    tuned = [row for row in ablation.rows if row.row.model == "student/finetuned"]
    curves: list[Curve | None] = []
    for number, row in enumerate(distilled):
        style = plot_style.line_style(number)
        curves += [read_curve(recipe_label(row.row.label), style, cell) for cell in row.cells]
    several_pairs = len({row.row.setting.pair for row in ablation.rows}) > 1
    for number, row in enumerate(tuned):
        style = {"color": plot_style.MUTED, "linestyle": REFERENCE_DASHES[number % len(REFERENCE_DASHES)]}
        pair = row.row.setting.pair
        label = f"fine-tuning alone, {short(pairs[pair].label or pair, 40)}" if several_pairs else "fine-tuning alone"
        curves += [read_curve(label, style, cell, is_reference=True) for cell in row.cells]
    return [curve for curve in curves if curve]


def is_labelled_at_ends(curves: Sequence[Curve]) -> bool:
    """Whether labels stand beside the lines; else they go into a legend."""
    named = _named(curves)
    return len(named) <= MOST_END_LABELS and all(len(curve.label) <= LONGEST_END_LABEL for curve in named)


def caption(ablation: AblationResult, curves: Sequence[Curve]) -> str:
    """What a reader must know to read the panels."""
    parts = [
        f"Lines: moving average without start bias (beta {betas_text(curves)}); faint: every step."
        if any(curve.beta for curve in curves)
        else "Every step, not smoothed."
    ]
    if any(curve.is_reference for curve in curves):
        parts.append("Dashed in class_loss: fine-tuning the student without a teacher.")
    if _is_unlike(ablation):
        parts.append("The total loss is not one scale: rows weigh or define it in their own ways. Compare class_loss.")
    return " ".join([*parts, *dict.fromkeys(f"{c.label}: {c.cell.state}." for c in curves if not c.cell.is_done)])


def _named(curves: Sequence[Curve]) -> list[Curve]:
    """One curve a label: seeds share theirs."""
    return list({curve.label: curve for curve in curves}.values())


def _is_unlike(ablation: AblationResult) -> bool:
    recipes = [row.row.setting.distill for row in ablation.rows if row.row.model == "distill"]
    return len({(r.kd_ratio, repr(r.loss), r.temperature, r.scale_by_t2) for r in recipes}) > 1


def _picture(ablation: AblationResult, curves: Sequence[Curve]) -> "Figure":
    is_ended = is_labelled_at_ends(curves)
    figure, axes = plot_style.panels(3, 4.3 if is_ended else 3.9, 3.4)
    for ax, loss in zip(axes, LOSSES, strict=True):
        _draw(ax, ablation, curves, loss)
    if not is_ended:
        handles = [_handle(curve) for curve in _named(curves)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=plot_style.INK)
    return figure


def _panel(ablation: AblationResult, curves: Sequence[Curve], loss: str) -> "Figure":
    figure, axes = plot_style.panels(1, 4.0, 3.3)
    _draw(axes[0], ablation, curves, loss)
    return figure


def _draw(ax: "Axes", ablation: AblationResult, curves: Sequence[Curve], loss: str) -> None:
    shown = [curve for curve in curves if curve.has(loss)]
    is_tokens = needs_tokens(curves)
    unit, factor = _unit(curves) if is_tokens else ("optimizer step", 1.0)
    positions = {id(curve): array("d", (x / factor for x in curve.positions(is_tokens))) for curve in curves}
    right = max(xs[-1] for xs in positions.values())
    is_seeded = len(shown) > len(_named(shown))
    for curve in shown:
        name = f"{curve.label}, seed {curve.cell.cell.seed}" if is_seeded else curve.label
        _draw_curve(ax, curve, loss, positions[id(curve)], name)
    note = ": not one scale" if loss == "loss" and _is_unlike(ablation) else ""
    ax.set_title(loss + note)
    ax.set_xlabel(unit)
    ax.set_xlim(0, right)
    if not shown:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", color=plot_style.MUTED)
        return
    _fit(ax, [end for curve in shown for end in (min(curve.smooth[loss]), max(curve.smooth[loss]))])
    if is_labelled_at_ends(curves):
        reach = {curve.label: positions[id(curve)][len(curve.raw[loss]) - 1] / right for curve in shown}
        _label_ends(ax, shown, loss, reach)


def _draw_curve(ax: "Axes", curve: Curve, loss: str, xs: Sequence[float], name: str) -> None:
    raw, smooth = curve.raw[loss], curve.smooth[loss]
    color = curve.style["color"]
    if curve.beta and len(raw) <= MOST_POINTS:
        ax.plot(xs[: len(raw)], raw, color=color, alpha=0.22, linewidth=0.8)
    elif curve.beta:
        middles, lows, highs = banded(xs, raw)
        ax.fill_between(middles, lows, highs, color=color, alpha=0.15, linewidth=0)
    ax.plot(*thinned(xs, smooth), **curve.style, zorder=3, label=name)
    if len(raw) < curve.num_steps:
        ax.plot(xs[len(raw) - 1], smooth[-1], marker="X", color=color, markersize=7, zorder=4)


def _fit(ax: "Axes", values: Sequence[float]) -> None:
    """The smoothed curves fill the panel; a log scale where they span more than a factor of 20."""
    from matplotlib.ticker import LogFormatter

    low, high = min(values), max(values)
    if low > 0 and high > 20 * low:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        ax.set_ylim(low / 1.15, high * 1.15)
        return
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    ax.set_ylim(low - room, high + room)


def _label_ends(ax: "Axes", shown: Sequence[Curve], loss: str, reach: Mapping[str, float]) -> None:
    """`reach`: how far to the right a curve goes; the label of one that ends early has no leader."""
    named = _named(shown)
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = [float(to_axes.transform((0, curve.smooth[loss][-1]))[1]) for curve in named]
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


def _alt(curves: Sequence[Curve], loss: str) -> str:
    """The finding in words: from where to where each line goes."""
    ends = [
        f"{curve.label} from {smooth[0]:.3f} to {smooth[-1]:.3f}"
        for curve in curves
        if curve.has(loss) and (smooth := curve.smooth[loss])
    ]
    return f"{loss} over the training, smoothed: {', '.join(ends)}." if ends else f"{loss}: none."
