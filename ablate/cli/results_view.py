"""What `results` prints, and the end of `run`: rows with score, difference to the control, gap recovered, cost."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from rich.table import Table
from rich.text import Text

from ablate.cli.console import STYLES, console_of_stdout, print_plainly, printable
from ablate.cli.row_choice import Choice
from ablate.core.text import duration
from ablate.report.formatting import listed
from ablate.report.metric_names import metric_name
from ablate.report.row_texts import (
    difference_interval,
    difference_text,
    gap_text,
    note_text,
    places_of,
    score_text,
    seeds_text,
)
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.results.row_records import RowRecord

PRIMARY_MARK = " *"
CLEAR = ("better", "worse", "equivalent")
"""Verdicts of several seeds; with one seed every row would have the same badge."""
COLOURS = {"better": "green", "worse": "red"}
RowNames: TypeAlias = Literal["labels", "names", "whole names"]
"""How rows are called: for a reader, or as other verbs take them."""
MetricNames: TypeAlias = Mapping[tuple[str, str], str]
"""Task and metric -> as people write them."""


LEFT_OUT: Final = ("Cost", "Gap recovered", "Verdict")
"""Columns for which a narrow terminal has no room, the first to go first."""
LEAST_LABEL = 28
"""Letters of a row's name that are not broken for the sake of a column."""


class _Column(NamedTuple):
    head: str
    text: Callable[[RowRecord], str]
    is_right: bool = False

    def width(self, records: Sequence[RowRecord]) -> int:
        return max(len(self.head), *(len(self.text(record)) for record in records))


class RowsTable(NamedTuple):
    """As a terminal has room for it."""

    table: Table
    left_out: frozenset[str]
    """Heads of columns that do not fit."""


def print_rows(choice: Choice) -> None:
    """A table an ablation, or one of all where they are in one order."""
    console, records = console_of_stdout(), choice.printed()
    names = names_of(choice.results)
    left_out: set[str] = set()
    for title, own, rows in _tables(choice, records):
        shown = rows_table(own, names, console.width, rows=rows)
        print_plainly(console, printable(title)) if title else None
        console.print(shown.table, "")
        left_out |= shown.left_out
    for line in foot(records, left_out) if records else [say("terminal.no_rows")]:
        print_plainly(console, line)


def _tables(choice: Choice, records: Sequence[RowRecord]) -> Iterator[tuple[str, Sequence[RowRecord], RowNames]]:
    if choice.wanted.is_ordered:
        if records:
            yield "", records, "whole names"
        return
    for ablation in choice.results.ablations:
        if own := [record for record in records if record.ablation == ablation.name]:
            yield f"{ablation.title} ({ablation.name})", own, "names"


def names_of(results: Results) -> dict[tuple[str, str], str]:
    """-> of every metric."""
    return {
        (metric.task, metric.name): metric_name(metric, ablation.columns)
        for ablation in results.ablations
        for metric in ablation.metrics
    }


def foot(records: Sequence[RowRecord], left_out: Collection[str] = ()) -> Iterator[str]:
    """-> what a reader of such tables has to know."""
    if any(record.is_primary for record in records):
        yield say("terminal.primary", mark=PRIMARY_MARK.strip())
    has_seeds = any(record.sd is not None for record in records)
    if any(record.score is not None for record in records):
        yield say("terminal.errors_of_seeds" if has_seeds else "table.errors_of_questions")
    if any(record.low is not None for record in records):
        yield say("terminal.intervals")
        if any(record.gap is not None for record in records) and "Gap recovered" not in left_out:
            yield say("terminal.gap")
        if not has_seeds:
            yield say("terminal.one_seed")
    if left_out:
        yield say("terminal.narrow", columns=listed(sorted(head.lower() for head in left_out)))


def rows_table(records: Sequence[RowRecord], names: MetricNames, width: int, *, rows: RowNames = "labels") -> RowsTable:
    """-> a line a record; a column only where there is something in it, and room for it."""
    used = [column for column in _columns(records, names, rows) if any(map(column.text, records))]
    columns = _fitting(used, records, width)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_right else "left"
        is_whole = column.head not in ("Row", "Note")
        table.add_column(Text(column.head), justify=justify, overflow="fold", no_wrap=is_whole)
    for record in records:
        table.add_row(*(Text(printable(column.text(record)), _style(record, column)) for column in columns))
    return RowsTable(table, frozenset(column.head for column in used) - {column.head for column in columns})


def _fitting(columns: Sequence[_Column], records: Sequence[RowRecord], width: int) -> list[_Column]:
    fitting = list(columns)
    for head in LEFT_OUT:
        first, *others = (column.width(records) for column in fitting)
        if min(first, LEAST_LABEL) + sum(others) + 2 * len(others) > width:
            fitting = [column for column in fitting if column.head != head]
    return fitting


def _columns(records: Sequence[RowRecord], names: MetricNames, rows: RowNames) -> list[_Column]:
    metrics = dict.fromkeys((record.task, record.metric) for record in records)
    is_alone, has_pairs = len(metrics) == 1, len({record.pair for record in records}) > 1
    score = names.get(next(iter(metrics)), "") if is_alone else "Score"
    places = {metric: places_of(record for record in records if (record.task, record.metric) == metric)
              for metric in metrics}  # fmt: skip
    mark = PRIMARY_MARK if is_alone and all(record.is_primary for record in records) else ""
    return [
        _Column("Row", lambda one: _row_text(one, rows)),
        _Column("Pair", lambda one: one.pair if has_pairs else ""),
        _Column("Metric", lambda one: "" if is_alone else _metric(one, names)),
        _Column("Seeds", seeds_text, True),
        _Column(f"{score}{mark}", lambda one: score_text(one, places[one.task, one.metric]), True),
        _Column("Difference", lambda one: difference_text(one, places[one.task, one.metric]), True),
        _Column("95 % interval", lambda one: difference_interval(one, places[one.task, one.metric])),
        _Column("Verdict", lambda one: one.verdict if one.verdict in CLEAR else ""),
        _Column("Gap recovered", gap_text, True),
        _Column("Cost", lambda one: "" if one.seconds is None else duration(one.seconds), True),
        _Column("Note", note_text),
    ]


def _row_text(record: RowRecord, rows: RowNames) -> str:
    whole = f"{record.ablation}/{record.row}"
    text = {"labels": record.label, "names": record.row, "whole names": whole}[rows]
    return say("terminal.control", row=text) if record.is_control else text


def _metric(record: RowRecord, names: MetricNames) -> str:
    return names.get((record.task, record.metric), "") + (PRIMARY_MARK if record.is_primary else "")


def _style(record: RowRecord, column: _Column) -> str:
    if column.head == "Verdict":
        return COLOURS.get(record.verdict or "", "")
    if column.head == "Note" and not record.is_done:
        return STYLES.get(record.states[-1], "")
    return "dim" if record.is_control else ""
