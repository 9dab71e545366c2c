"""A row's numbers as text, the same in a terminal and in LaTeX."""

import math
from collections.abc import Iterable

from ablate.report.formatting import decimals, interval_text, number, percent, with_error
from ablate.report.words import say
from ablate.results.row_records import RowRecord


def places_of(records: Iterable[RowRecord]) -> int:
    """-> decimals of a metric's numbers: of its scores' errors."""
    return decimals(record.stderr or record.sd for record in records)


def score_text(record: RowRecord, places: int) -> str:
    """`0.512 ± 0.032`; of several seeds with their standard deviation."""
    if record.score is None:
        return ""
    return with_error(record.score, record.stderr if record.sd is None else record.sd, places)


def difference_text(record: RowRecord, places: int) -> str:
    return "" if record.difference is None else number(record.difference, places, is_signed=True)


def difference_interval(record: RowRecord, places: int) -> str:
    if record.low is None or record.high is None or math.isnan(record.low):
        return ""
    return interval_text(record.low, record.high, places)


def gap_text(record: RowRecord) -> str:
    """`93 % (41 to 160)`; nothing where it is refused."""
    if record.gap is None or record.gap_low is None or record.gap_high is None:
        return ""
    return f"{percent(record.gap)} % ({percent(record.gap_low)} to {percent(record.gap_high)})"


def seeds_text(record: RowRecord) -> str:
    """`3`, `2 of 3`; nothing of a row that has one seed, or none."""
    done, num = record.seeds, len(record.keys)
    return "" if num == 1 else str(num) if done == num else f"{done} of {num}"


def note_text(record: RowRecord) -> str:
    """-> what is not done, cannot be compared or is odd."""
    states = ", ".join(state for state in record.states if state != "done")
    refused = say("terminal.not_comparable", why=record.not_comparable) if record.not_comparable else ""
    marks = [mark for mark in record.marks if mark not in record.states]
    return "; ".join(filter(None, [states, refused, *marks]))
