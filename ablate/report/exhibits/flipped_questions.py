"""Questions that flipped: one row answers them rightly, its contrast wrongly, and how sure each was of both answers."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.formatting import number, recipe_label
from ablate.report.markup import render
from ablate.report.metric_names import metric_name
from ablate.report.model_text import Part, one_line, parts, shortened, visible
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.choice_answers import UNKNOWN
from ablate.results.collect import AblationResult, Results, RowResult
from ablate.results.flips import Flip, FlipsRefused, Option, TaskFlips, flips_of
from ablate.results.shown_pairs import Pair

MOST_ON_PAGE = 288
"""Questions of a study that its page shows; the file has more."""
LONGEST_QUESTION, LONGEST_CHOICE = 400, 160
PLACES = 2


class Text(NamedTuple):
    """What was asked or answered."""

    parts: list[Part]
    line: str
    """The same on one line."""


class Line(NamedTuple):
    """One question, as shown."""

    name: str
    question: Text | None
    right: Text
    right_logprobs: tuple[str, str]
    other: Text | None
    other_logprobs: tuple[str, str]


class Sheet(NamedTuple):
    """Two rows on one task."""

    caption: str
    plus: str
    minus: str
    has_logprobs: bool
    groups: list[tuple[str, list[Line]]]
    """What they have in common -> lines."""


@EXHIBITS.register("flips", order=122)
def flipped_questions(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables in a fold, and tables/<ablation>-flips.csv; None without an answer of two rows to show."""
    every = flips_of(results, ablation)
    known = [one for one in every if isinstance(one, TaskFlips)]
    if not any(flip.options for one in known for flip in one.shown):
        return None
    shown = _fitting(known, MOST_ON_PAGE // len(results.ablations))
    file = f"tables/{ablation.name}-flips.csv"
    values = {
        "title": ablation.title,
        "summary": _finding(ablation, known[0]),
        "search": say("samples.search"),
        "sheets": [_sheet(ablation, one) for one in shown],
        "notes": [*_notes(ablation, every), say("samples.file", file=file)],
    }
    html, markdown = render("flips.html", **values), render("flips.md", **values)
    return Piece(html, markdown, {file: to_csv(_csv(known)).encode()}, fold=say("samples.fold"))


def _fitting(known: Sequence[TaskFlips], most: int) -> list[TaskFlips]:
    """-> the first ones, as many as a page has room for: one at least."""
    shown: list[TaskFlips] = []
    num = 0
    for one in known:
        num += len(one.shown)
        if shown and num > most:
            break
        shown.append(one)
    return shown


def _finding(ablation: AblationResult, one: TaskFlips) -> str:
    return say(
        "samples.finding",
        plus=_label(one.pair.plus),
        minus=_label(one.pair.minus),
        metric=metric_name(one.metric, ablation.columns),
        won=f"{one.num_won:,}",
        lost=f"{one.num_lost:,}",
        num=f"{one.num:,}",
    )


def _notes(ablation: AblationResult, every: Sequence[TaskFlips | FlipsRefused]) -> Iterator[str]:
    yield say("samples.rule")
    known = [one for one in every if isinstance(one, TaskFlips)]
    if not all(one.has_words for one in known):
        yield say("samples.no_words")
    for task, why in dict.fromkeys((one.task, one.why) for one in every if isinstance(one, FlipsRefused)):
        yield say("samples.refused", task=task, why=why)
    num_rows = len({id(one.pair.plus) for one in known})
    num_distilled = sum(row.row.model == "distill" and bool(row.done) for row in ablation.rows)
    if num_rows < num_distilled:
        yield say("samples.some_rows", num=num_rows, all=num_distilled)


def _sheet(ablation: AblationResult, one: TaskFlips) -> Sheet:
    lines = [(flip.is_won, _line(flip)) for flip in one.shown]
    plus, minus = _label(one.pair.plus), _label(one.pair.minus)
    groups = [(True, say("samples.won", row=plus)), (False, say("samples.lost", row=minus))]
    metric = metric_name(one.metric, ablation.columns)
    return Sheet(
        say("samples.caption", plus=plus, minus=minus, metric=metric) + _seed(one),
        plus,
        minus,
        any(math.isfinite(value) for flip in one.shown for option in flip.options for value in option.logprobs),
        [(text, own) for is_won, text in groups if (own := [line for won, line in lines if won == is_won])],
    )


def _seed(one: TaskFlips) -> str:
    seeds = dict.fromkeys(cell.cell.seed for cell in one.cells if cell.cell.seed is not None)
    is_one_of_several = any(len(row.cells) > 1 for row in (one.pair.plus, one.pair.minus))
    return f" {say('samples.seed', seed=' and '.join(map(str, seeds)))}" if is_one_of_several and seeds else ""


def _line(flip: Flip) -> Line:
    right, *others = flip.options or (None,)
    other = others[0] if others else None
    question = None if flip.question is None else _text(_end(flip.question))
    return Line(
        say("samples.question", task=flip.task, id=flip.doc_id),
        question,
        _answer(right) if right else _text("?"),
        _logprobs(right),
        _answer(other) if other else None,
        _logprobs(other),
    )


def _end(question: str) -> str:
    return question if len(question) <= LONGEST_QUESTION else f"… {question[-LONGEST_QUESTION:]}"


def _answer(option: Option) -> Text:
    if option.text is None:
        return _text(say("samples.choice", number=option.number + 1))
    text, half = option.text.strip(), LONGEST_CHOICE // 2
    return _text(text if len(text) <= LONGEST_CHOICE else f"{text[:half]} … {text[-half:]}")  # an answer is at its end


def _logprobs(option: Option | None) -> tuple[str, str]:
    values = option.logprobs if option else (math.nan, math.nan)
    plus, minus = ("" if math.isnan(value) else number(value, PLACES) for value in values)
    return plus, minus


def _text(text: str) -> Text:
    return Text(parts(text), one_line(text))


def _label(row: RowResult) -> str:
    return recipe_label(row.row.label)


def _csv(known: Sequence[TaskFlips]) -> Iterator[list[object]]:
    of_options = ("number", "text", "logprob_plus", "logprob_minus")
    yield [
        *("contrast", "plus", "minus", "seed_plus", "seed_minus", "task", "metric", "doc_id", "flip", "change"),
        *("question", *(f"{which}_{name}" for which in ("right", "other") for name in of_options)),
    ]
    for one in known:
        for flip in one.shown:
            options: list[Option | None] = [*flip.options, None, None]
            yield [
                *_named(one.pair),
                *(cell.cell.seed for cell in one.cells),
                *(flip.task, one.metric.name, flip.doc_id, "won" if flip.is_won else "lost", flip.change),
                *(
                    None if flip.question is None else visible(flip.question),
                    *_fields(options[0]),
                    *_fields(options[1]),
                ),
            ]


def _named(pair: Pair) -> tuple[str, str, str]:
    return "own" if pair.is_own else "control", pair.plus.row.name, pair.minus.row.name


def _fields(option: Option | None) -> tuple[object, ...]:
    if option is None:
        return (None,) * 4
    place = None if option.number == UNKNOWN else option.number
    return place, None if option.text is None else visible(shortened(option.text)[0]), *option.logprobs
