"""What went wrong with rows, a sentence each: one collapsed, diverged, over-fitted, or guesses."""

from collections.abc import Iterator, Sequence

from ablate.report.formatting import listed
from ablate.report.metric_names import metric_name
from ablate.report.row_words import reference_name, row_words
from ablate.report.score_text import score_text
from ablate.report.words import capitalised, say
from ablate.results.collect import Metric
from ablate.results.marks import Mark

MANY = 3
"""Rows that guess by one metric are counted, not named."""


def mark_texts(marks: Sequence[Mark], columns: Sequence[Metric]) -> list[str]:
    """-> row by row: `Distillation with a learning rate of 0.02 collapsed: it scores 20.0 % on tiny_letters`, ..."""
    by_row: dict[int, list[Mark]] = {}
    guesses: dict[Metric, list[Mark]] = {}
    for mark in marks:
        if mark.kind == "chance" and mark.metric:
            guesses.setdefault(mark.metric, []).append(mark)
    many = {metric: len(own) for metric, own in guesses.items() if len(own) >= MANY}
    for mark in marks:
        if mark.kind != "chance" or mark.metric not in many:
            by_row.setdefault(id(mark.row), []).append(mark)
    texts = [capitalised(text) for own in by_row.values() for text in _of_row(own, columns)]
    return texts + [say("mark.many", num=num, metrics=metric_name(metric, columns)) for metric, num in many.items()]


def _of_row(marks: Sequence[Mark], columns: Sequence[Metric]) -> Iterator[str]:
    row, by_kind = row_words(marks[0].row), {mark.kind: mark for mark in marks}
    collapsed, diverged = by_kind.get("collapsed"), by_kind.get("diverged")
    if collapsed:
        has_risen = diverged is not None and diverged.value is not None
        yield say("mark.both" if has_risen else "mark.collapsed", row=row, **_numbers(collapsed, columns))
    if diverged and not (collapsed and diverged.value is not None):
        is_number = diverged.value is not None
        yield say("mark.risen" if is_number else "mark.diverged", row=row, **_numbers(diverged, columns))
    if "over-fitted" in by_kind:
        yield say("mark.over_fitted", row=row, **_numbers(by_kind["over-fitted"], columns))
    if guessed := [metric_name(mark.metric, columns) for mark in marks if mark.kind == "chance" and mark.metric]:
        yield say("mark.chance", row=row, metrics=listed(guessed))


def _numbers(mark: Mark, columns: Sequence[Metric]) -> dict[str, str]:
    metric = metric_name(mark.metric, columns) if mark.metric else ""
    value, beside = (_value(mark.metric, number) for number in (mark.value, mark.beside))
    against = reference_name(mark.against.row) if mark.against else ""
    return {"metric": metric, "value": value, "beside": beside, "against": against}


def _value(metric: Metric | None, number: float | None) -> str:
    if number is None:
        return ""
    return score_text(metric, number) if metric else f"{number:.2f}"
