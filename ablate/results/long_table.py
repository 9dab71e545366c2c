"""The results of a study as one long table, a line a number: results.csv, and the library's DataFrame."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ablate.results.collect import CellResult, Metric, Results, Score

if TYPE_CHECKING:
    import pandas


class Record(NamedTuple):
    """One line of results.csv. A cell without scores keeps a line for each it will have."""

    ablation: str
    row: str
    seed: int | None
    task: str
    metric: str
    value: float | None
    stderr: float | None
    n: int | None
    key: str
    state: str


def records(results: Results) -> Iterator[Record]:
    """-> the lines, in table order."""
    for ablation in results.ablations:
        for cell in ablation.cells:
            yield from _records(cell, ablation.metrics)


def frame(results: Results) -> "pandas.DataFrame":
    """-> the lines of results.csv, numbers as numbers."""
    import pandas

    table = pandas.DataFrame(list(records(results)), columns=Record._fields)
    return table.astype({"seed": "Int64", "n": "Int64", "value": "float64", "stderr": "float64"})


def _records(cell: CellResult, expected: tuple[Metric, ...]) -> Iterator[Record]:
    for metric in expected:
        score = cell.scores.get(metric)
        if score or not cell.is_done:
            yield _record(cell, *metric, score)
    known = {metric.task for metric in expected}
    unknown = [task for task in cell.cell.row.setting.evaluate.task_names if task not in known]
    for task in unknown if not cell.is_done else ():
        yield _record(cell, task)
    if cell.is_done and not cell.scores:
        yield _record(cell)


def _record(cell: CellResult, task: str = "", metric: str = "", score: Score | None = None) -> Record:
    row, seed, evaluate = cell.cell.row, cell.cell.seed, cell.cell.evaluate
    value, stderr, n = score or (None, None, None)
    return Record(row.ablation, row.name, seed, task, metric, value, stderr, n, evaluate.key12, cell.state)
