"""What `plan --cards` prints: how a study's largest stages fit on cards that need not be here; for --json the same."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from ablate.cli.console import console_of_stdout, print_plainly
from ablate.planning.asked_cards import CardSet, size_words
from ablate.planning.card_fit import Fit, Fits, fits_on
from ablate.planning.card_verdicts import SHARE
from ablate.planning.plan import Plan


def cards_record(plan: Plan, asked: Sequence[CardSet]) -> dict[str, Any]:
    """-> what `plan --json` says of the cards that were asked about."""
    known = fits_on(plan, asked)
    return {
        "fits": [_fit_record(plan, fit) for fit in known.fits],
        "not_known": [plan.label(stage) for stage in known.unknown],
        "notes": list(known.notes),
    }


def _fit_record(plan: Plan, fit: Fit) -> dict[str, Any]:
    return {
        "stage": fit.stage.key,
        "kind": fit.stage.kind,
        "label": plan.label(fit.stage),
        "cards": fit.cards.num,
        "card_bytes": fit.cards.card_bytes,
        "is_fit": fit.verdict.is_fit,
        "needed_cards": fit.verdict.num_cards,
        "needed_bytes": fit.verdict.card_bytes,
        "host_bytes": fit.verdict.host_bytes,
        "how": fit.verdict.how,
        "instead": list(fit.instead),
    }


def print_cards(plan: Plan, asked: Sequence[CardSet]) -> None:
    """A table of the largest stages, one line for each size of card and all numbers that come to the same."""
    console, known = console_of_stdout(), fits_on(plan, asked)
    print_plainly(console, f"\n{_head(known)}")
    table = Table("stage", "cards", "GB a card", "verdict", box=None)
    for stage, fits in groupby(known.fits, key=lambda fit: fit.stage):
        label = plan.label(stage)
        for alike in _alike(fits):
            one = alike[0]
            style = "" if one.verdict.is_fit else "red"
            needed = f"{one.verdict.card_bytes / 1e9:.1f}"
            table.add_row(Text(label), _cards(alike), needed, Text(one.words, style))
            label = ""
    if known.fits:
        console.print(table)
    if known.unknown:
        labels = ", ".join(plan.label(stage) for stage in known.unknown)
        print_plainly(console, f"known once models are here (`ablate run` begins with them): {labels}")
    for note in known.notes:
        print_plainly(console, note)


def _head(known: Fits) -> str:
    if not known.fits and not known.unknown:
        return "no stage of this study holds a model"
    return f"on cards: the largest stage of each kind and model, as estimated; {1 - SHARE:.0%} of a card stays free"


def _alike(fits: Iterable[Fit]) -> list[list[Fit]]:
    """-> those of one size of card that come to the same, together."""
    sets = groupby(fits, key=lambda fit: (fit.cards.card_bytes, fit.verdict, fit.instead))
    return [list(fits) for _, fits in sets]


def _cards(alike: Sequence[Fit]) -> str:
    """-> 2, 4 x 80 GB."""
    return f"{', '.join(str(fit.cards.num) for fit in alike)} x {size_words(alike[0].cards.card_bytes)}"
