"""What `results` prints, and the end of `run`: rows with score, difference to the control, gap recovered, cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from rich.table import Table
from rich.text import Text

from ablate.cli.console import STYLES, console_of_stdout, print_plainly, printable
from ablate.cli.row_choice import Choice
from ablate.core.text import duration
from ablate.report.metric_names import metric_name
from ablate.report.row_texts import difference_interval, difference_text, gap_text, note_text, places_of, score_text
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


class _Column(NamedTuple):
    head: str
    text: Callable[[RowRecord], str]
    is_right: bool = False


def print_rows(choice: Choice) -> None:
    """A table an ablation, or one of all where they are in one order."""
    console, records = console_of_stdout(), choice.printed()
    names = names_of(choice.results)
    if not records:
        print_plainly(console, say("terminal.no_rows"))
    elif choice.wanted.is_ordered:
        console.print(rows_table(records, names, rows="whole names"))
    for ablation in choice.results.ablations if not choice.wanted.is_ordered else ():
        if own := [record for record in records if record.ablation == ablation.name]:
            print_plainly(console, f"{printable(ablation.title)} ({ablation.name})")
            console.print(rows_table(own, names, rows="names"), "")
    for line in foot(records):
        print_plainly(console, line)


def names_of(results: Results) -> dict[tuple[str, str], str]:
    """-> of every metric."""
    return {
        (metric.task, metric.name): metric_name(metric, ablation.columns)
        for ablation in results.ablations
        for metric in ablation.metrics
    }


def foot(records: Sequence[RowRecord]) -> Iterator[str]:
    """-> what a reader of such a table has to know."""
    if any(record.is_primary for record in records):
        yield say("terminal.primary", mark=PRIMARY_MARK.strip())
    if any(record.low is not None for record in records):
        yield say("terminal.intervals")
        if any(record.gap is not None for record in records):
            yield say("terminal.gap")
        if not any(record.sd is not None for record in records):
            yield say("terminal.one_seed")


def rows_table(records: Sequence[RowRecord], names: MetricNames, *, rows: RowNames = "labels") -> Table:
    """-> a line a record; a column only where there is something in it."""
    columns = [column for column in _columns(records, names, rows) if any(map(column.text, records))]
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.head), justify="right" if column.is_right else "left", overflow="fold")
    for record in records:
        table.add_row(*(Text(printable(column.text(record)), _style(record, column)) for column in columns))
    return table


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
        _Column("Seeds", lambda one: str(one.seeds) if one.sd is not None else "", True),
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
