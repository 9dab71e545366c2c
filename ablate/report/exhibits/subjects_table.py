"""The table of a task subject by subject: where one row is ahead of another, and where behind it."""

import math
from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.formatting import interval_text, number, recipe_label, short
from ablate.report.markup import md, render
from ablate.report.metric_names import metric_name
from ablate.report.model_text import visible
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.results.subjects import LEAST_QUESTIONS, Subject, TaskSubjects, subjects_of

MOST_LINES = 24
"""Of a task: the largest gains and the largest losses."""
PLACES = 3


@EXHIBITS.register("subjects", order=124)
def subjects_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> a table a task in a fold, and tables/<ablation>-subjects.csv; None where no task has subjects."""
    known = list(subjects_of(results, ablation))
    if not known:
        return None
    file = f"tables/{ablation.name}-subjects.csv"
    shown = [_values(ablation, one, file) for one in known]
    html = "\n".join(render("listing.html", **values) for values in shown)
    markdown = "\n".join(f"{md(values['caption'])}\n\n{render('listing.md', **values)}" for values in shown)
    return Piece(html, markdown, {file: to_csv(_csv(known)).encode()}, fold=say("subjects.fold"))


def _values(ablation: AblationResult, one: TaskSubjects, file: str) -> dict[str, object]:
    plus, minus = (recipe_label(row.row.label) for row in (one.pair.plus, one.pair.minus))
    name = metric_name(one.metric, ablation.columns)
    return {
        "title": ablation.title,
        "region": say("subjects.fold"),
        "caption": say("subjects.caption", plus=plus, minus=minus, metric=name),
        "head": ("Questions", "Subject", plus, minus, "Difference", "95 % interval"),
        "lines": [_line(subject) for subject in _ends(one.subjects)],
        "note": " ".join(_notes(one, file)),
    }


def _ends(subjects: Sequence[Subject]) -> Sequence[Subject]:
    half = MOST_LINES // 2
    return subjects if len(subjects) <= MOST_LINES else (*subjects[:half], *subjects[-half:])


def _notes(one: TaskSubjects, file: str) -> Iterator[str]:
    yield say("subjects.note")
    if one.num_small:
        yield say("subjects.small", num=one.num_small, least=LEAST_QUESTIONS)
    if num := len(one.subjects) - len(_ends(one.subjects)):
        yield say("subjects.middle", num=num, file=file)
    yield say("subjects.file", file=file)


def _line(subject: Subject) -> tuple[str, ...]:
    low, high = subject.interval
    scores = (number(subject.plus, PLACES), number(subject.minus, PLACES))
    interval = "not known" if math.isnan(low) else interval_text(low, high, PLACES)
    difference = number(subject.contrast.value, PLACES, is_signed=True)
    return (f"{subject.contrast.n:,}", short(visible(subject.name)), *scores, difference, interval)


def _csv(known: Sequence[TaskSubjects]) -> Iterator[list[object]]:
    yield ["plus", "minus", "task", "metric", "subject", "n", "score_plus", "score_minus", "difference", "low", "high"]
    for one in known:
        for subject in one.subjects:
            yield [
                *(
                    one.pair.plus.row.name,
                    one.pair.minus.row.name,
                    *one.metric,
                    visible(subject.name),
                    subject.contrast.n,
                ),
                *(subject.plus, subject.minus, subject.contrast.value, *subject.interval),
            ]
