"""The rows of one table with their numbers still numbers: score, difference to the control, published score."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.core.errors import grouped_by_text
from ablate.core.failures import without_particulars
from ablate.report.formatting import state_and_why
from ablate.results.collect import AblationResult, CellResult, Metric, RowResult
from ablate.results.paired import Contrast
from ablate.results.question_scores import NotComparable, Summary
from ablate.results.verdicts import Finding, Findings
from ablate.study.published import Published


@dataclass(frozen=True)
class Entry:
    """One row and one metric: what we measured, how it differs from the control, what others published."""

    score: Summary | None
    difference: Contrast | str | None
    """None for the control itself and where there is nothing to compare; a text says why not comparable."""
    published: float | None
    finding: Finding | None = None
    """Of a distilled row: what the difference comes to beside all others of its table."""


@dataclass(frozen=True)
class TableRow:
    """One row of the table, its numbers still numbers."""

    result: RowResult
    is_control: bool
    entries: dict[Metric, Entry]

    @property
    def label(self) -> str:
        return self.result.row.label

    @property
    def seeds(self) -> str:
        """`3`, or `2 of 3` where some are not done; empty for a model that nothing was trained for."""
        done, total = len(self.result.done), len(self.result.cells)
        if self.result.cells[0].cell.seed is None:
            return ""
        return str(total) if done == total else f"{done} of {total}"

    @property
    def news(self) -> list[str]:
        """What is not done, in words: `failed: out of memory`."""
        several = len(self.result.cells) > 1
        return _news(self.result.unfinished, several)

    @property
    def is_calm(self) -> bool:
        """Whether nothing went wrong: what is not done waits or runs."""
        return all(cell.state in ("waiting", "running") for cell in self.result.unfinished)


def table_rows(
    ablation: AblationResult,
    metrics: Sequence[Metric],
    published: Published | None = None,
    findings: Findings | None = None,
) -> list[TableRow]:
    """-> one line a row, in table order, with an entry for each metric."""
    return [_line(ablation, metrics, row, published, findings) for row in ablation.rows]


def _line(
    ablation: AblationResult,
    metrics: Sequence[Metric],
    result: RowResult,
    published: Published | None,
    findings: Findings | None,
) -> TableRow:
    control = ablation.control_of(result.row)
    theirs = published.scores(result.row, ablation.spec.set) if published else {}
    entries = {
        metric: Entry(
            score=result.score(metric),
            difference=_difference(result, control, metric),
            published=their_score.value if (their_score := theirs.get(str(metric))) else None,
            finding=findings.find(result, metric) if findings else None,
        )
        for metric in metrics
    }
    return TableRow(result, control is result, entries)


def _difference(result: RowResult, control: RowResult | None, metric: Metric) -> Contrast | str | None:
    if control is None or control is result or not (control.done and result.done):
        return None
    try:
        return result.difference(control, metric)
    except NotComparable as reason:
        return f"not comparable: {reason}"


def _news(cells: Sequence[CellResult], are_some_of_several: bool) -> list[str]:
    """-> why there is no score, once for all seeds with the same reason."""
    if not are_some_of_several:
        return [state_and_why(cell.state, cell.why) for cell in cells]
    seeds = ((str(cell.cell.seed), state_and_why(cell.state, cell.why)) for cell in cells)
    grouped = grouped_by_text(seeds, limit=6, likeness=without_particulars)
    return [f"seed{'s' if ',' in these else ''} {these} {why}" for these, why in grouped]
