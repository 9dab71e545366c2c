"""What `results --csv` and `--json` print: of results.csv and results.json what the options choose."""

from typing import Any

from ablate.cli.row_choice import Choice
from ablate.report.results_json import cell_record, difference_records
from ablate.results.collect import CellResult, Metric
from ablate.results.long_table import Record, records


def csv_records(choice: Choice) -> list[Record]:
    """-> the lines, in the order of the rows that are printed."""
    ranks = choice.ranks()
    chosen = (line for line in records(choice.results) if (line.ablation, line.row) in ranks)
    lines = [line for line in chosen if _is_wanted(choice, line)]
    return sorted(lines, key=lambda line: ranks[line.ablation, line.row])


def _is_wanted(choice: Choice, line: Record) -> bool:
    is_metric = not choice.wanted.has_metrics or Metric(line.task, line.metric) in choice.metrics
    return is_metric and choice.wanted.is_in_state([line.state])


def json_record(choice: Choice) -> dict[str, Any]:
    """-> the rows, each by every metric that is chosen, and their cells and differences."""
    study, ranks = choice.results.study, choice.ranks()
    metrics = {str(metric) for metric in choice.metrics}
    cells = (cell for cell in choice.results.cells if (cell.cell.row.ablation, cell.cell.row.name) in ranks)
    differences = (one for one in difference_records(choice.results) if (one["ablation"], one["row"]) in ranks)
    return {
        "study": study.name,
        "primary": study.report.primary,
        "rows": [record._asdict() for record in choice.complete()],
        "cells": [_cell(choice, cell) for cell in cells if choice.wanted.is_in_state([cell.state])],
        "differences": [one for one in differences if one["metric"] in metrics],
    }


def _cell(choice: Choice, cell: CellResult) -> dict[str, Any]:
    record = cell_record(cell)
    tasks = {name: {**task, **_scores(choice, name, task)} for name, task in record["tasks"].items()}
    return record | {"tasks": {name: task for name, task in tasks.items() if task["metrics"] or task["finer"]}}


def _scores(choice: Choice, name: str, task: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        kind: {metric: value for metric, value in task[kind].items() if Metric(name, metric) in choice.metrics}
        for kind in ("metrics", "finer")
    }
