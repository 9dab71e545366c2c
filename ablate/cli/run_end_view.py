"""How `run` ends: what each ablation asked, its answer, its rows by the primary metric, and what to ship."""

import math
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding

from ablate.cli.console import console_of_stdout, print_plainly, printable
from ablate.cli.results_view import MetricNames, foot, rows_table
from ablate.core import disk
from ablate.report.words import say
from ablate.results.row_records import RowRecord, read_record

MOST_ROWS = 40
"""Of all tables: a longer study shows its best rows alone."""
INDENT = 2
BEST = 3
"""Rows of each ablation of a long study."""


class _Answered(NamedTuple):
    """One ablation."""

    title: str
    question: str
    answer: str
    names: MetricNames
    rows: Sequence[RowRecord]


def print_end(report: Path, name: str) -> None:
    """Prints what the report in a folder comes to. Whatever is odd about it: a run does not fail by its last words."""
    try:
        record = (disk.read_json(report / "results.json") or {})["summary"]
        ablations = [_answered(fields) for fields in record["ablations"]]
        _print(console_of_stdout(), ablations, record["ship"], name)
    except (TypeError, KeyError, ValueError) as error:
        print_plainly(console_of_stdout(), say("terminal.no_end", why=f"{type(error).__name__}: {error}"))


def _answered(fields: Mapping[str, Any]) -> _Answered:
    rows = [read_record(row) for row in fields["rows"]]
    names = {(row.task, row.metric): fields["metric"] for row in rows}
    return _Answered(fields["title"], fields["question"], fields["answer"], names, rows)


def _print(console: Console, ablations: Sequence[_Answered], ship: Sequence[Mapping[str, Any]], name: str) -> None:
    every = [row for ablation in ablations for row in ablation.rows]
    known: set[tuple[str, ...]] = set()
    left_out: set[str] = set()
    for ablation in ablations if any(row.seeds for row in every) else ():
        for line in _lines(ablation):
            print_plainly(console, printable(line))
        is_long = len(every) > MOST_ROWS
        rows = best_rows(ablation.rows)[:BEST] if is_long else [row for row in ablation.rows if _is_new(row, known)]
        if any(row.seeds for row in ablation.rows) and rows:
            shown = rows_table(rows, ablation.names, console.width - INDENT)
            console.print(Padding(shown.table, (0, 0, 0, INDENT), expand=False))
            left_out |= shown.left_out
        known |= {row.keys for row in ablation.rows}
    for line in _last_lines(every, left_out, ship, name):
        print_plainly(console, printable(line))


def _last_lines(
    rows: Sequence[RowRecord], left_out: Collection[str], ship: Sequence[Mapping[str, Any]], name: str
) -> Iterator[str]:
    if any(row.seeds for row in rows):
        yield ""
        yield from foot(rows, left_out)
        yield say("terminal.more", name=name)
    for shipping in ship:
        cell = shlex.quote(f"{name}:{shipping['cell']}")
        yield say("terminal.ship", text=shipping["text"], cell=cell)


def _lines(ablation: _Answered) -> Iterator[str]:
    yield ""
    yield ablation.question or ablation.title
    if ablation.answer:
        yield f"  {ablation.answer}"


def _is_new(row: RowRecord, known: Collection[tuple[str, ...]]) -> bool:
    """Whether it is no reference row that stands in a table above; a control stands in its own, too."""
    return row.is_control or row.model == "distill" or row.keys not in known


def best_rows(records: Sequence[RowRecord]) -> list[RowRecord]:
    """-> the students' rows that have a score, the best first."""
    scores = [
        (record.score if record.lower_is_better else -record.score, place)
        for place, record in enumerate(records)
        if record.score is not None and not math.isnan(record.score) and record.is_student
    ]
    return [records[place] for _, place in sorted(scores)]
