"""Results as csv: exact numbers, the same text for the same results, and nothing that a spreadsheet would run."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from ablate.results.collect import Results
from ablate.results.long_table import Record, records

STARTS_FORMULA = tuple("=+-@\t\r")


def results_csv(results: Results) -> str:
    """-> results.csv: a line for each (ablation, row, seed, task, metric)."""
    return to_csv([Record._fields, *records(results)])


def to_csv(lines: Iterable[Iterable[Any]]) -> str:
    """-> one line each, numbers with all their digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_harmless(value) for value in line] for line in lines)
    return text.getvalue()


def _harmless(value: Any) -> str:
    """NaN as NaN; a text that begins like a formula is quoted, as spreadsheets do."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    return f"'{value}" if value.startswith(STARTS_FORMULA) else str(value)
