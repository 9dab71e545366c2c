"""Page 1: what was learned, how sure it is, what to ship, what it cost, what is odd, what to try next."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from ablate.core.errors import grouped_by_text
from ablate.core.failures import without_particulars
from ablate.report.exhibits.base import Piece
from ablate.report.exhibits.main_table import row_id
from ablate.report.findings_text import headline
from ablate.report.formatting import plural, state_and_why
from ablate.report.front_text import cost_text, how_sure, next_text, odd_text, ship_text
from ablate.report.words import say
from ablate.results.collect import AblationResult, CellResult, Results, RowResult
from ablate.results.shipping import shipping_of

TROUBLED = ("failed", "damaged", "diverged", "blocked")


class Answer(NamedTuple):
    """An ablation on page 1."""

    anchor: str
    question: str
    """Its title where it asks none."""
    answer: str
    state: str
    """Where it is not done."""


class Offer(NamedTuple):
    """What to ship of one pair of models."""

    text: str
    anchor: str
    """Of its row."""
    section: str
    """Of its table."""
    command: str


class Trouble(NamedTuple):
    """Cells that have no result for one reason."""

    cells: str
    why: str


class Card(NamedTuple):
    """Sentences under a heading."""

    title: str
    texts: tuple[str, ...]
    is_alert: bool = False


class Front(NamedTuple):
    """All that page 1 shows below the title."""

    alerts: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    num_done: int
    num_cells: int
    sure: tuple[str, ...]
    answers: tuple[Answer, ...]
    figure: Piece | None
    offers: tuple[Offer, ...]
    cards: tuple[Card, ...]


def front_page(results: Results, figure: Piece | None) -> Front:
    """-> of a study at whatever point it is."""
    return Front(
        alerts=tuple(_alerts(results)),
        troubles=tuple(_troubles(results.cells)),
        num_done=sum(cell.is_done for cell in results.cells),
        num_cells=len(results.cells),
        sure=tuple(how_sure(results)),
        answers=tuple(_answer(results, ablation) for ablation in results.ablations),
        figure=figure,
        offers=tuple(_offers(results)),
        cards=tuple(_cards(results)),
    )


def _alerts(results: Results) -> Iterator[str]:
    """-> what a reader must know before any answer."""
    if results.study.rehearsal:
        yield say("page.rehearsal")


def _troubles(cells: tuple[CellResult, ...]) -> Iterator[Trouble]:
    """-> what failed first, once for all that failed alike; what merely waits is only counted."""
    for word in TROUBLED:
        troubled = [cell for cell in cells if cell.state == word]
        pairs = ((cell.cell.name, state_and_why(cell.state, cell.why, 320)) for cell in troubled)
        likeness = str if word == "diverged" else without_particulars
        yield from (Trouble(*group) for group in grouped_by_text(pairs, likeness=likeness))


def _answer(results: Results, ablation: AblationResult) -> Answer:
    num = sum(cell.is_done for cell in ablation.cells)
    state = "" if num == len(ablation.cells) else f"{num} of {plural(len(ablation.cells), 'cell')} done"
    answer = headline(results, ablation) or say("page.not_yet")
    return Answer(ablation.name, ablation.spec.question or ablation.title, answer, state)


def _offers(results: Results) -> Iterator[Offer]:
    for one, text in zip(shipping_of(results), ship_text(results), strict=True):
        cell = shlex.quote(f"{results.study.name}:{one.cell.cell.name}")
        table, number = _place(results, one.cheapest)
        yield Offer(text, row_id(table, number), table.name, f"ablate export {cell} exported")


def _place(results: Results, row: RowResult) -> tuple[AblationResult, int]:
    """-> the table that a row stands in, and which of its rows it is."""
    return next((table, n) for table in results.ablations for n, one in enumerate(table.rows) if one is row)


def _cards(results: Results) -> Iterator[Card]:
    """-> after what to ship."""
    odd = tuple(odd_text(results))
    none = "page.nothing_odd" if all(cell.is_done for cell in results.cells) else "page.no_more_odd"
    yield Card("What is missing or odd", odd or (say(none),), is_alert=bool(odd))
    if following := tuple(next_text(results)):
        yield Card("What to try next", following)
    if cost := tuple(cost_text(results)):
        yield Card("What it cost", cost)
