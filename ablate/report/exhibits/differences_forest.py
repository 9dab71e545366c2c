"""The forest plot of differences to the control: distilled rows with adjusted intervals, one panel a metric."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ablate.report import plot_style, verdict_looks
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.figure import figure, numbered
from ablate.report.formatting import decimals, noise, short
from ablate.report.labels import on_lines, one_line
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, is_share, round_difference, shown
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, Findings, Ruler, findings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL = 32
RULER: dict[str, Any] = {"marker": "|", "markersize": verdict_looks.SIZE, "color": plot_style.MUTED}


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
    """-> what bars and the band mean, and which noise the intervals hold."""
    rows = [one_line(row.row.label) for row in findings.of_questions_only]
    sources = noise(has_seeds=findings.has_seed_noise, exceptions=rows)
    text = [say("figures.forest", noise=sources), say("figures.band", delta=_delta_text(findings, delta))]
    if findings.rulers:
        of_rulers = noise(has_seeds=all(finding.contrast.has_seed_noise for finding in findings.rulers))
        text.append(say("figures.ruler", noise=of_rulers))
    return " ".join(text)


def _delta_text(findings: Findings, delta: float) -> str:
    """-> `1 point`, where all metrics are shares."""
    metrics = {finding.metric for finding in findings.all}
    return round_difference(min(metrics), delta) if all(map(is_share, metrics)) else f"{delta:g}"


def _panel_rows(findings: Findings, metric: Metric) -> list[Finding | Ruler]:
    """-> the lines of a panel; the rulers first."""
    shown: tuple[Finding | Ruler, ...] = (*findings.rulers, *findings.all)
    return [finding for finding in shown if finding.metric == metric]


def _picture(findings: Findings, ablation: AblationResult, metrics: Sequence[Metric], delta: float) -> "Figure":
    num_rows = max(len(_panel_rows(findings, metric)) for metric in metrics)
    figure, axes = plot_style.panels(len(metrics), 3.0, _height(num_rows), sharey=True)
    figure.set_figwidth(3.0 * len(metrics) + 2.0)
    for ax, metric in zip(axes, metrics, strict=True):
        draw_differences(ax, findings, ablation, metric, delta)
    return figure


def _panel(findings: Findings, ablation: AblationResult, delta: float, metric: Metric) -> "Figure":
    figure, axes = plot_style.panels(1, 5.2, _height(len(_panel_rows(findings, metric))))
    draw_differences(axes[0], findings, ablation, metric, delta)
    return figure


def _height(num_rows: int) -> float:
    return 0.95 + 0.34 * num_rows


def draw_differences(
    ax: "Axes", findings: Findings, ablation: AblationResult, metric: Metric, delta: float, width: int = LABEL
) -> None:
    """A line of the panel for each finding by this metric; `width`: letters of a label's line."""
    rows = _panel_rows(findings, metric)
    ax.set_title(axis_label(metric, metric_name(metric, ablation.columns), is_difference=True))
    if is_share(metric):
        plot_style.show_share(ax.xaxis)
    plot_style.name_rows(ax, on_lines([finding.row.row.label for finding in rows], width))
    ax.axvspan(-delta, delta, color=plot_style.GRID, alpha=0.6, linewidth=0)
    ax.axvline(0, color=plot_style.MUTED, linewidth=1, zorder=1)
    known = [finding for finding in rows if finding.contrast]
    values = [finding.contrast.value for finding in known if finding.contrast]
    ends = [(finding.low, finding.high) for finding in known]  # NaN of one question
    ax.set_xlim(*plot_style.limits([(0.0, -delta, delta), values], ends))
    ax.locator_params(axis="x", nbins=5)
    for y, finding in enumerate(rows):
        _draw_row(ax, finding, y)


def _draw_row(ax: "Axes", finding: Finding | Ruler, y: int) -> None:
    if finding.contrast is None:
        place = ax.get_yaxis_transform()
        why = short(f"not comparable: {finding.why}", 40)
        ax.text(0.02, y, why, transform=place, va="center", color=plot_style.PALETTE[1], fontsize=8.5)
        return
    is_ruler = isinstance(finding, Ruler)
    look = RULER if isinstance(finding, Ruler) else verdict_looks.look(finding)
    draw_interval(ax, finding.low, finding.high, y, look["color"], marker="|" if is_ruler else "")
    label = finding_text(finding, decimals([finding.contrast.se]))
    ax.plot(finding.contrast.value, y, zorder=3, label=label, **look)


def draw_interval(ax: "Axes", low: float, high: float, y: float, color: str, marker: str = "") -> None:
    """A bar from end to end; none where an end is unknown."""
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [y, y], color=color, linewidth=1.5, marker=marker, markersize=9, zorder=2)


def _alt(findings: Findings, ablation: AblationResult, metric: Metric) -> str:
    """The finding in words: every difference with its interval and verdict."""
    rows = _panel_rows(findings, metric)
    places = decimals([finding.contrast.se for finding in rows if finding.contrast])
    texts = ", ".join(finding_text(finding, places) for finding in rows)
    return f"{metric_name(metric, ablation.columns)}, differences: {texts}."


def finding_text(finding: Finding | Ruler, places: int) -> str:
    """`KD, lr=0.001 +1.2 (+0.3 to +2.1), ahead`."""
    label = one_line(finding.row.row.label)
    if finding.contrast is None:
        return f"{label} not comparable"
    word = "the control against itself" if isinstance(finding, Ruler) else verdict_looks.words(finding)
    level, low, high = ("95 %", finding.low, finding.high) if isinstance(finding, Ruler) else finding.deciding
    value, *ends = (shown(finding.metric, one, places, is_signed=True) for one in (finding.contrast.value, low, high))
    return f"{label} {value} ({'' if level == '95 %' else f'{level} '}{' to '.join(ends)}), {word}"
