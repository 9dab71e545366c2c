"""The heat map of rows that differ in two settings: a grid of differences to the control, one panel a metric."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.report import plot_style, verdict_looks
from ablate.report.axis_numbers import number_texts
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.differences_forest import finding_text
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.formatting import decimals, plain, plural
from ablate.report.labels import on_lines
from ablate.report.metric_names import metric_name
from ablate.report.score_text import axis_label, shown
from ablate.report.words import say
from ablate.results.aligned_rows import distilled
from ablate.results.axes import varied_paths
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.paired import Contrast
from ablate.results.verdicts import Finding, findings_of
from ablate.study.names import short_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_VALUES = 12
FAINTEST, STRONGEST = 0.06, 0.55
"""Opacity of a cell without a difference, and of the largest one: its numbers stay readable."""


class Grid(NamedTuple):
    """The distilled rows of one control, by the two settings in which they differ."""

    paths: tuple[str, str]
    """Across and down."""
    values: tuple[tuple[Any, ...], tuple[Any, ...]]
    rows: dict[tuple[int, int], RowResult]
    """Column and line -> the row; where there is none, the study asks for none."""

    @property
    def pair(self) -> str:
        return next(iter(self.rows.values())).row.setting.pair

    def name(self, direction: int) -> str:
        return short_paths(self.paths)[self.paths[direction]]

    def labels(self, direction: int) -> list[str]:
        """Of the values, whole or nearly so: what differs must not look alike."""
        values = self.values[direction]
        is_numeric = all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
        return number_texts(values) if is_numeric else on_lines([plain(value) for value in values], 16, most=4)

    @property
    def positions(self) -> Iterator[tuple[int, int]]:
        yield from ((x, y) for y in range(len(self.values[1])) for x in range(len(self.values[0])))


class Sheet(NamedTuple):
    """One panel: a grid by one metric."""

    grid: Grid
    metric: Metric
    findings: dict[tuple[int, int], Finding]
    """Only what can be compared."""
    title: str
    delta: float
    """Within which arms are equivalent."""

    @property
    def contrasts(self) -> list[Contrast]:
        return [finding.contrast for finding in self.findings.values() if finding.contrast]

    @property
    def num_decimals(self) -> int:
        return decimals([contrast.se for contrast in self.contrasts])

    @property
    def full(self) -> float:
        """The difference that has the strongest colour: one that counts and could be seen at least; noise is pale."""
        seen = [contrast.visible for contrast in self.contrasts if math.isfinite(contrast.se)]
        return max([self.delta, *seen, *(abs(contrast.value) for contrast in self.contrasts)])


@EXHIBITS.register("differences-heat", order=90)
def heat_map(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-heat, and the panels of the page; None unless rows differ in two settings."""
    sheets = sheets_of(results, ablation)
    if not sheets:
        return None
    name, grid = f"{ablation.name}-heat", sheets[0].grid
    return figure(
        name,
        partial(picture, sheets),
        [Panel(f"{name}-{n}", partial(picture, [sheet]), alt(sheet)) for n, sheet in enumerate(sheets)],
        title=f"By {grid.name(0)} and {grid.name(1)}: {ablation.title}",
        caption=say("figures.heat"),
        is_wide=max(len(sheet.grid.values[0]) for sheet in sheets) > 3,
        fold="The grid as a picture",
    )


def sheets_of(results: Results, ablation: AblationResult) -> list[Sheet]:
    """-> of each control whose rows are a grid of two settings, one for each metric; none where there is no grid."""
    grids = [grid for _, rows in distilled(ablation) if (grid := grid_of(rows))]
    return [sheet for grid in grids for sheet in _sheets(results, ablation, grid, is_alone=len(grids) == 1)]


def grid_of(rows: Sequence[RowResult]) -> Grid | None:
    """-> the rows by the two settings in which they differ, one at each place.

    None where it is not so, where most places are empty, as of a random search, and where a picture would be too small.
    """
    paths = varied_paths(rows)
    if len(paths) != 2 or not all(path in row.row.values for row in rows for path in paths):
        return None
    across, down = sorted(paths, key=lambda path: -len(_values(rows, path)))
    values = (_values(rows, across), _values(rows, down))
    positions = [
        tuple(known.index(row.row.values[path]) for known, path in zip(values, (across, down), strict=True))
        for row in rows
    ]
    row_at = {(x, y): row for (x, y), row in zip(positions, rows, strict=True)}
    grid = Grid((across, down), values, row_at)
    labels = [grid.labels(direction) for direction in (0, 1)]
    is_readable = max(map(len, labels)) <= MOST_VALUES and all(len(set(texts)) == len(texts) for texts in labels)
    is_grid = len(row_at) == len(rows) and 2 * len(rows) >= len(values[0]) * len(values[1])
    return grid if is_grid and is_readable else None


def _values(rows: Sequence[RowResult], path: str) -> tuple[Any, ...]:
    """-> those of a setting, numbers from low to high, else as the table has them."""
    values: list[Any] = []
    for row in rows:
        if row.row.values[path] not in values:
            values.append(row.row.values[path])
    is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return tuple(sorted(values) if is_numeric else values)


def _sheets(results: Results, ablation: AblationResult, grid: Grid, *, is_alone: bool) -> Iterator[Sheet]:
    findings = findings_of(results, ablation)
    for metric in ablation.columns:
        comparable = {
            position: finding
            for position, row in grid.rows.items()
            if (finding := findings.find(row, metric)) and finding.contrast
        }
        if comparable:
            name = axis_label(metric, metric_name(metric, ablation.columns), is_difference=True)
            title = name if is_alone else f"{name}, {grid.pair}"
            yield Sheet(grid, metric, comparable, title, results.study.report.delta)


def picture(sheets: Sequence[Sheet]) -> "Figure":
    """Side by side."""
    across, down = (max(len(sheet.grid.values[direction]) for sheet in sheets) for direction in (0, 1))
    figure, axes = plot_style.panels(len(sheets), 1.3 + 0.95 * across, 0.95 + 0.6 * down)
    for ax, sheet in zip(axes, sheets, strict=True):
        draw_grid(ax, sheet)
    return figure


def draw_grid(ax: "Axes", sheet: Sheet) -> None:
    """A cell for each place of the grid."""
    grid = sheet.grid
    ax.set_title(sheet.title)
    ax.set_xticks(range(len(grid.values[0])), grid.labels(0))
    ax.set_yticks(range(len(grid.values[1])), grid.labels(1))
    ax.set_xlabel(grid.name(0))
    ax.set_ylabel(grid.name(1))
    ax.set_xlim(-0.5, len(grid.values[0]) - 0.5)
    ax.set_ylim(len(grid.values[1]) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for position in grid.positions:
        if position in sheet.findings:
            _draw_cell(ax, position, sheet)
        else:
            _draw_gap(ax, position, grid.rows.get(position))


def _draw_cell(ax: "Axes", position: tuple[int, int], sheet: Sheet) -> None:
    from matplotlib.patches import Rectangle

    finding = sheet.findings[position]
    assert finding.contrast
    share = min(abs(finding.contrast.value) / sheet.full, 1.0) if math.isfinite(finding.contrast.se) else 0.0
    color = plot_style.PALETTE[0 if finding.is_ahead else 1] if share else plot_style.GRID
    alpha = FAINTEST + (STRONGEST - FAINTEST) * share
    label = finding_text(finding, sheet.num_decimals)
    ax.add_patch(Rectangle(_corner(position), 0.96, 0.94, color=color, alpha=alpha, linewidth=0, label=label))
    value = shown(sheet.metric, finding.contrast.value, sheet.num_decimals, is_signed=True)
    lines = [value, f"±{shown(sheet.metric, finding.contrast.se, sheet.num_decimals)}"]
    lines[0] += f" {mark}" if (mark := verdict_looks.SIGNS.get(verdict_looks.standing(finding))) else ""
    ax.text(*position, "\n".join(lines), ha="center", va="center", fontsize=7.5, linespacing=1.15)


def _draw_gap(ax: "Axes", position: tuple[int, int], row: RowResult | None) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(
        Rectangle(_corner(position), 0.96, 0.94, facecolor="none", edgecolor=plot_style.GRID, hatch="////", linewidth=0)
    )
    if row:
        look: dict[str, Any] = {"fontsize": 7.5, "color": plot_style.MUTED, "bbox": plot_style.TEXT_BOX}
        ax.text(*position, _gap(row), ha="center", va="center", **look)


def _gap(row: RowResult) -> str:
    """-> why a row has no difference here."""
    if row.row.name == row.row.control:
        return "control"
    return "not comparable" if row.done else row.cells[0].state


def _corner(position: tuple[int, int]) -> tuple[float, float]:
    return position[0] - 0.48, position[1] - 0.47


def alt(sheet: Sheet) -> str:
    """The finding in words: every difference with its interval and verdict."""
    missing = sum(position not in sheet.findings for position in sheet.grid.positions)
    gaps = f" {plural(missing, 'place')} without a difference." if missing else ""
    texts = ", ".join(finding_text(finding, sheet.num_decimals) for finding in sheet.findings.values())
    return f"{sheet.title}, differences by {sheet.grid.name(0)} and {sheet.grid.name(1)}: {texts}.{gaps}"
