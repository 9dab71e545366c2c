"""How `run` ends: what each ablation asked, its answer, its rows by the primary metric, and what to ship."""

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
    is_long = sum(len(ablation.rows) for ablation in ablations) > MOST_ROWS
    known: set[tuple[str, ...]] = set()
    for ablation in ablations:
        if any(row.seeds for row in ablation.rows):
            for line in _lines(ablation):
                print_plainly(console, printable(line))
            rows = best_rows(ablation.rows)[:BEST] if is_long else [row for row in ablation.rows if _is_new(row, known)]
            console.print(Padding(rows_table(rows, ablation.names), (0, 0, 0, 2), expand=False))
            known |= {row.keys for row in ablation.rows}
    print_plainly(console, "")
    rows = [row for ablation in ablations for row in ablation.rows]
    for line in (*foot(rows), *([say("terminal.more", name=name)] if any(row.seeds for row in rows) else ())):
        print_plainly(console, line)
    for shipping in ship:
        cell = shlex.quote(f"{name}:{shipping['cell']}")
        print_plainly(console, printable(say("terminal.ship", text=shipping["text"], cell=cell)))


def _lines(ablation: _Answered) -> Iterator[str]:
    yield ""
    yield ablation.question or ablation.title
    if ablation.answer:
        yield f"  {ablation.answer}"


def _is_new(row: RowRecord, known: Collection[tuple[str, ...]]) -> bool:
    """Whether it is no reference row that stands in a table above; a control stands in its own, too."""
    return row.is_control or not row.row.startswith(("teacher/", "student/")) or row.keys not in known


def best_rows(records: Sequence[RowRecord]) -> list[RowRecord]:
    """-> the students' rows that are done, the best score first."""
    scored = [record for record in records if record.score is not None and not record.row.startswith("teacher/")]
    return sorted(scored, key=lambda record: (record.score or 0.0) * (1 if record.lower_is_better else -1))
