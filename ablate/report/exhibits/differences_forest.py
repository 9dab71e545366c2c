"""The forest plot of differences to the control: distilled rows with adjusted intervals, one panel a metric."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.exhibits.scores_forest import wrapped
from ablate.report.formatting import decimals, interval_text, noise, number, short
from ablate.report.metric_names import metric_name
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, Findings, Ruler, Verdict, findings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAR: tuple[Verdict, ...] = ("better", "worse", "equivalent")
ROOM = 0.08


@EXHIBITS.register("differences", order=70)
def differences_forest(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-differences.png and .svg, and the panels of the page."""
    findings, delta = findings_of(results, ablation), results.study.report.delta
    compared = {finding.metric for finding in findings.all if finding.contrast}
    metrics = [metric for metric in ablation.columns if metric in compared]
    if not metrics:
        return None
    name = f"{ablation.name}-differences"
    return figure(
        name,
        partial(_picture, findings, ablation, metrics, delta),
        numbered(name, metrics, partial(_panel, findings, ablation, delta), partial(_alt, findings, ablation)),
        title=f"Differences: {ablation.title}",
        caption=caption(findings, delta),
        is_wide=True,
        fold="Every difference to the control as a picture",
    )


def caption(findings: Findings, delta: float) -> str:
    """-> what bars, fillings and greys mean, and which noise the intervals hold."""
    rows = [short(row.row.label, 40) for row in findings.of_questions_only]
    sources = noise(has_seeds=findings.has_seed_noise, exceptions=rows)
    return (
        f"Difference to the control; bars: intervals that hold together with 95 %, of {sources}. Filled: told from no"
        f" difference after correction, or equivalent (a single 90 % interval in the band of ±{delta:g}); grey:"
        f" suggestive; hollow: inconclusive.{_ruler(findings)}"
    )


def _ruler(findings: Findings) -> str:
    if not findings.rulers:
        return ""
    sources = noise(has_seeds=all(finding.contrast.has_seed_noise for finding in findings.rulers))
    return (
        f" With end marks: the control against itself under other seeds, at the same level, of {sources}; in no family."
    )


def _panel_rows(findings: Findings, metric: Metric) -> list[Finding | Ruler]:
    """-> the lines of a panel; the rulers first."""
    shown: tuple[Finding | Ruler, ...] = (*findings.rulers, *findings.all)
    return [finding for finding in shown if finding.metric == metric]


def _picture(findings: Findings, ablation: AblationResult, metrics: Sequence[Metric], delta: float) -> "Figure":
    num_rows = max(len(_panel_rows(findings, metric)) for metric in metrics)
    figure, axes = plot_style.panels(len(metrics), 3.0, _height(num_rows), sharey=True)
    figure.set_figwidth(3.0 * len(metrics) + 2.0)
    for ax, metric in zip(axes, metrics, strict=True):
        _draw(ax, findings, ablation, metric, delta)
    return figure


def _panel(findings: Findings, ablation: AblationResult, delta: float, metric: Metric) -> "Figure":
    figure, axes = plot_style.panels(1, 5.2, _height(len(_panel_rows(findings, metric))))
    _draw(axes[0], findings, ablation, metric, delta)
    return figure


def _height(num_rows: int) -> float:
    return 0.95 + 0.34 * num_rows


def _draw(ax: "Axes", findings: Findings, ablation: AblationResult, metric: Metric, delta: float) -> None:
    rows = _panel_rows(findings, metric)
    ax.set_title(f"{metric_name(metric, ablation.columns)}: difference")
    plot_style.name_rows(ax, [wrapped(finding.row.row.label) for finding in rows])
    ax.axvspan(-delta, delta, color=plot_style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=plot_style.MUTED, linewidth=1, zorder=1)
    known_ends = [
        end for finding in rows if finding.contrast for end in (finding.contrast.value, finding.low, finding.high)
    ]
    ends = [-delta, delta, *(end for end in known_ends if math.isfinite(end))]  # one question has no interval
    room = ROOM * (max(ends) - min(ends))
    ax.set_xlim(min(ends) - room, max(ends) + room)
    ax.locator_params(axis="x", nbins=5)
    for y, finding in enumerate(rows):
        _draw_row(ax, finding, y)


def _draw_row(ax: "Axes", finding: Finding | Ruler, y: int) -> None:
    if finding.contrast is None:
        place = ax.get_yaxis_transform()
        why = short(f"not comparable: {finding.why}", 40)
        ax.text(0.02, y, why, transform=place, va="center", color=plot_style.PALETTE[1], fontsize=8.5)
        return
    color, ends = (plot_style.MUTED, "|") if isinstance(finding, Ruler) else (plot_style.PALETTE[0], "")
    if math.isfinite(finding.low):
        ax.plot([finding.low, finding.high], [y, y], color=color, linewidth=1.4, marker=ends, markersize=9)
    look = {"marker": "|"} if isinstance(finding, Ruler) else {"marker": "o", **face(finding.verdict, color)}
    label = finding_text(finding, decimals([finding.contrast.se]))
    ax.plot(finding.contrast.value, y, markersize=6.5, color=color, zorder=3, label=label, **look)


def face(verdict: Verdict, color: str) -> dict[str, Any]:
    """-> how a dot is filled: by the colour where the verdict is clear, grey where it is suggestive, else hollow."""
    face = color if verdict in CLEAR else plot_style.MUTED if verdict == "suggestive" else plot_style.PAPER
    return {"markerfacecolor": face}


def _alt(findings: Findings, ablation: AblationResult, metric: Metric) -> str:
    """The finding in words: every difference with its interval and verdict."""
    rows = _panel_rows(findings, metric)
    places = decimals([finding.contrast.se for finding in rows if finding.contrast])
    texts = ", ".join(finding_text(finding, places) for finding in rows)
    return f"{metric_name(metric, ablation.columns)}, differences: {texts}."


def finding_text(finding: Finding | Ruler, places: int) -> str:
    """`KD, lr=0.001 +0.0120 (+0.0031 to +0.0209), better`."""
    label = short(finding.row.row.label, 40)
    if finding.contrast is None:
        return f"{label} not comparable"
    word = "the control against itself" if isinstance(finding, Ruler) else finding.verdict
    level, low, high = ("95 %", finding.low, finding.high) if isinstance(finding, Ruler) else finding.deciding
    value, level_text = number(finding.contrast.value, places, is_signed=True), "" if level == "95 %" else f"{level} "
    return f"{label} {value} ({level_text}{interval_text(low, high, places)}), {word}"
