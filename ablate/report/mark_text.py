"""What went wrong with a row, in a sentence: it collapsed, diverged, over-fitted, or guesses."""

from collections.abc import Sequence

from ablate.report.metric_names import metric_name
from ablate.report.row_words import row_words
from ablate.report.score_text import score_text
from ablate.report.words import capitalised, say
from ablate.results.collect import Metric
from ablate.results.marks import Mark


def mark_text(mark: Mark, columns: Sequence[Metric]) -> str:
    """-> `A learning rate of 0.02 collapsed: it scores 20.0 % on tiny_letters`, and so on, as a sentence."""
    metric = metric_name(mark.metric, columns) if mark.metric else ""
    value, beside = (_value(mark.metric, number) for number in (mark.value, mark.beside))
    situation = f"mark.{mark.kind.replace('-', '_')}"
    return capitalised(say(situation, row=row_words(mark.row), metric=metric, value=value, beside=beside))


def _value(metric: Metric | None, number: float | None) -> str:
    if number is None:
        return ""
    return score_text(metric, number) if metric else f"{number:.2f}"
