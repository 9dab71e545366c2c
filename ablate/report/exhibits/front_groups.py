"""What the figure of page 1 shows: the distilled rows of each ablation, by the metric that decides."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import NamedTuple

from ablate.report.formatting import decimals, pair_suffix, state_and_why, whole_recipe_label
from ablate.results.aligned_rows import distilled
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.row_intervals import RowInterval, interval_of
from ablate.results.verdicts import Finding, findings_of, sign_of

MOST_LINES = 26
"""Of rows in all ablations together, and of what is left of them; more are drawn on one line."""


class Line(NamedTuple):
    """One distilled row."""

    row: RowResult
    label: str
    interval: RowInterval | None
    finding: Finding | None
    """Beside the control of its ablation."""
    letter: str
    """The same for rows that are one run; empty of a run that no other ablation shows."""
    why: str = ""
    """There is no score."""


class Reference(NamedTuple):
    """A row that others are held against."""

    row: RowResult
    value: float


class Group(NamedTuple):
    """The rows of an ablation that have one control."""

    title: str
    lines: tuple[Line, ...]
    more: tuple[Line, ...]
    """For which there is no room to be named."""
    references: tuple[tuple[str, Reference], ...]
    """control, teacher/baseline, teacher/finetuned: those that have a score."""
    sign: int
    """-1 where lower is better."""
    metric: Metric

    @property
    def all(self) -> tuple[Line, ...]:
        return self.lines + self.more

    @property
    def num_lines(self) -> int:
        return len(self.lines) + bool(self.more)

    @property
    def control(self) -> Reference | None:
        return dict(self.references).get("control")

    @property
    def best(self) -> Line | None:
        """-> the row with the best score; whether it is more than noise is another question."""
        scored = [line for line in self.all if line.interval and math.isfinite(line.interval.value)]
        return max(scored, key=lambda line: self.sign * _value(line), default=None)

    @property
    def ends(self) -> tuple[list[float], list[float]]:
        """-> what the picture has to hold, and the ends of intervals, which it holds as far as there is room."""
        scores = [line.interval for line in self.all if line.interval]
        references = [reference.value for _, reference in self.references]
        values = [value for score in scores for value in (score.value, *score.seeds)]
        return values + references, [end for score in scores for end in (score.low, score.high)]

    @property
    def num_decimals(self) -> int:
        return decimals([line.interval.error for line in self.all if line.interval])


def primary_of(results: Results) -> Metric | None:
    """-> the first ablation's; None before anything is measured."""
    return next((ablation.primary for ablation in results.ablations if ablation.primary), None)


def groups_of(results: Results, metric: Metric) -> list[Group]:
    """-> in the order of the page; of the ablations that have this metric, each cut to its best rows where it must."""
    whole = [group for ablation in results.ablations for group in _groups(results, ablation, metric)]
    sizes = [len(group.lines) for group in whole]
    most = next((k for k in range(max(sizes, default=0), 1, -1) if _num_lines(sizes, k) <= MOST_LINES), 1)
    return [_cut(group, most) for group in whole]


def _num_lines(sizes: Sequence[int], most: int) -> int:
    return sum(min(size, most) + (size > most) for size in sizes)


def _groups(results: Results, ablation: AblationResult, metric: Metric) -> Iterator[Group]:
    if metric not in ablation.metrics:
        return
    findings, letters = findings_of(results, ablation), _letters(results)
    arms = [(control, rows) for control, rows in distilled(ablation) if rows]
    pairs = [rows[0].row.setting.pair for _, rows in arms]
    for (control, rows), pair in zip(arms, pairs, strict=True):
        lines = tuple(_line(row, metric, findings.find(row, metric), letters) for row in rows)
        title = ablation.title + pair_suffix(pair, pairs)
        done = [row for row in rows if row.score(metric)]
        sign = sign_of(done[0], metric) if done else 1
        yield Group(title, lines, (), tuple(_references(ablation, control, rows, metric)), sign, metric)


def _line(row: RowResult, metric: Metric, finding: Finding | None, letters: dict[frozenset[str], str]) -> Line:
    interval = interval_of(row, metric)
    if interval is not None and not math.isfinite(interval.value):
        interval, why = None, "NaN"
    else:
        first = row.cells[0]  # what blocks it is named by its key, and tells of its failure itself
        why = "not measured" if row.done else state_and_why(first.state, first.why * (first.state != "blocked"), 48)
    return Line(row, whole_recipe_label(row.row.label), interval, finding, letters.get(row.run, ""), why)


def _references(
    ablation: AblationResult, control: RowResult | None, rows: Sequence[RowResult], metric: Metric
) -> Iterator[tuple[str, Reference]]:
    of_pair = [row for row in ablation.rows if row.row.setting.pair == rows[0].row.setting.pair]
    teachers = [(row.row.model, row) for row in of_pair if row.row.model.startswith("teacher/") and row is not control]
    for kind, row in [("control", control), *teachers]:
        score = row.score(metric) if row else None
        if row and score and math.isfinite(score.value):
            yield str(kind), Reference(row, score.value)


def _letters(results: Results) -> dict[frozenset[str], str]:
    """-> a, b, ... for each run that several ablations show."""
    rows = [row for ablation in results.ablations for _, rows in distilled(ablation) for row in rows]
    counts = Counter(row.run for row in rows)
    shared = [run for run, num in counts.items() if num > 1]
    return dict(zip(shared, ascii_lowercase, strict=False))


def _cut(group: Group, most: int) -> Group:
    """-> the group with its best rows in their order, the others as `more`."""
    if len(group.lines) <= most:
        return group
    ranked = sorted(group.lines, key=lambda line: -group.sign * _value(line) if line.interval else math.inf)
    kept = {id(line) for line in ranked[:most]}
    lines = tuple(line for line in group.lines if id(line) in kept)
    return group._replace(lines=lines, more=tuple(line for line in group.lines if id(line) not in kept))


def _value(line: Line) -> float:
    return line.interval.value if line.interval else math.nan
