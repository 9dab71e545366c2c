"""Rows of a table as people call them: by what is particular to them, `distillation from a fine-tuned teacher`."""

from collections.abc import Sequence
from typing import Any

from ablate.report.formatting import listed, plain, recipe_label
from ablate.report.setting_words import bare_value, value_words
from ablate.report.words import say, words_of
from ablate.results.collect import RowResult
from ablate.study.cells import Row
from ablate.study.names import value_text


def row_words(row: RowResult) -> str:
    """-> `distillation with a learning rate of 0.004`; the label of a reference row, or that the study gives."""
    return rows_words([row])


def rows_words(rows: Sequence[RowResult], *, is_more: bool = False) -> str:
    """-> of several, what they share once: `distillation with a learning rate of 0.02, 0.001 and 0.0001`.

    `is_more`: distillations were named before, so that `that with` does for them.
    """
    if not are_distillations(rows):
        return listed(reference_name(row.row) for row in rows)
    subject = say("row.other" if is_more else "row.distillation")
    paths = {path for row in rows for path in row.row.values}
    phrases = [_phrases(row) for row in rows]
    if len(paths) == 1:
        (path,) = paths
        values = [_value(row.row.values[path]) for row in rows]
        named = [f"{path} {value}" in words_of("row") for value in values]
        phrases[1:] = [phrases[n] if named[n] else bare_value(path, values[n]) for n in range(1, len(rows))]
    return f"{subject} {listed(phrases)}".rstrip()


def student_words(row: RowResult) -> str:
    """-> the model that comes of it: `the student distilled from a fine-tuned teacher`, `the fine-tuned student`."""
    if not _has_made_label(row):
        return words_of("shipped").get(row.row.model) or say("ship.of", row=reference_name(row.row))
    how = _phrases(row)
    return say("ship.distilled", how=how) if how else say("ship.kd")


def are_distillations(rows: Sequence[RowResult]) -> bool:
    """Whether they are called so: one noun, `distillation`, whatever their number."""
    return all(_has_made_label(row) for row in rows)


def reference_name(row: Row) -> str:
    """-> `fine-tuning alone`; of a row that is no reference its label."""
    return words_of("control_name").get(row.model, recipe_label(row.label))


def _phrases(row: RowResult) -> str:
    """-> `from a fine-tuned teacher with a learning rate of 0.004 and a KD ratio of 0.5`."""
    text, shared = "", say("row.with", setting="")
    for path, value in row.row.values.items():
        phrase = _phrase(path, _value(value))
        is_one_more = phrase.startswith(shared) and shared in text
        text += say("row.and", setting=phrase.removeprefix(shared)) if is_one_more else f" {phrase}"
    return text.strip()


def _value(value: Any) -> str:
    """-> a number as the study's own contrasts have it, `1.0`."""
    return value_text(value) if isinstance(value, float) else plain(value)


def _phrase(path: str, value: str) -> str:
    own = words_of("row").get(f"{path} {value}")
    return own or say("row.with", setting=value_words(path, value))


def _has_made_label(row: RowResult) -> bool:
    """Whether its label was made of its settings, and is none that the study gives."""
    return row.row.model == "distill" and (row.row.name == "kd" or "=" in row.row.name)
