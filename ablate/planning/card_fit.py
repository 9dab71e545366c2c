"""How a plan's largest stages fit on cards that need not be here, and what would fit where one does not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ablate.planning.asked_cards import CardSet
from ablate.planning.card_verdicts import Verdict, verdict
from ablate.planning.foreseen import foreseen
from ablate.planning.plan import Plan
from ablate.planning.smaller_stages import shortened, smaller
from ablate.store.kind import KINDS
from ablate.store.memory import Held
from ablate.store.stage import Stage

FURTHER = (2, 4, 8, 16)
"""Cards that are offered where fewer do not do."""


SHORTER = (2, 4)
"""So many times, rows that are offered where these do not do."""


class Fit(NamedTuple):
    """A stage on a set of cards."""

    stage: Stage
    cards: CardSet
    verdict: Verdict
    instead: tuple[str, ...] = ()
    """Where it does not fit: what would, in words."""

    @property
    def words(self) -> str:
        if self.verdict.num_cards == 1:
            there = f" ({self.verdict.host_bytes / 1e9:.1f} GB there)" if self.verdict.host_bytes else ""
            return ", ".join(filter(None, ["fits on one card", self.verdict.how])) + there
        if self.verdict.is_fit:
            return f"needs {self.verdict.num_cards} cards: {self.verdict.how}"
        would = f"; would fit: {', or '.join(self.instead)}" if self.instead else "; no other way is known to fit"
        return f"does not fit: {self.verdict.how}{would}"


class Fits(NamedTuple):
    """What is known of a plan's stages on all the cards that were asked about."""

    fits: tuple[Fit, ...]
    """Stage by stage, in the order of the cards."""
    unknown: tuple[Stage, ...]
    """Of whose models nothing is known yet."""
    notes: tuple[str, ...] = ()
    """What was assumed of models and rows that are not here."""


def fits_on(plan: Plan, asked: Sequence[CardSet]) -> Fits:
    """-> the largest stage of each kind and of each model, on each of these sets of cards."""
    store, notes = foreseen(plan)
    plan = replace(plan, store=store)
    largest: dict[tuple[str, ...], tuple[Stage, Held]] = {}
    unknown: dict[tuple[str, ...], Stage] = {}
    for stage in plan.stages:
        if KINDS[stage.kind].spread is None:  # holds no model, or none for long
            continue
        held, group = _held(plan, stage), _group(plan, stage)
        if held is None:
            unknown.setdefault(group, stage)
        elif group not in largest or held.estimate > largest[group][1].estimate:
            largest[group] = stage, held
    by_size = sorted(largest.values(), key=lambda known: -known[1].estimate)
    fits = (fit for stage, held in by_size for fit in _fits(plan, stage, held, asked))
    return Fits(tuple(fits), tuple(unknown.values()), notes)


def _held(plan: Plan, stage: Stage) -> Held | None:
    return KINDS[stage.kind].cost(stage, plan.store, plan.aids(stage)).held


def _group(plan: Plan, stage: Stage) -> tuple[str, ...]:
    """-> what is alike in stages of which the largest speaks for all: kind, models, and whether teachers are kept."""
    models = [f"{name} {one.key}" for name, one in stage.inputs.items() if _is_model(name, one)]
    return (stage.kind, *models, *plan.aids(stage))


def _is_model(name: str, source: Stage) -> bool:
    """Not what was trained on top of one."""
    return KINDS[source.kind].is_light and name.startswith(("model", "teacher", "student"))


def _fits(plan: Plan, stage: Stage, held: Held, asked: Sequence[CardSet]) -> Iterator[Fit]:
    """-> of one stage, on each set of cards."""
    hows = [verdict(held, *cards) for cards in asked]
    are_all = all(how.is_fit for how in hows)
    less = () if are_all else tuple(smaller(stage, lambda other: _held(plan, other)))
    shorter = [shortened(held, times) for times in SHORTER] if "rows" in stage.inputs else []
    for cards, how in zip(asked, hows, strict=True):
        instead = () if how.is_fit else (*_instead(held, less, cards), *_with_shorter_rows(shorter, cards))
        yield Fit(stage, cards, how, instead)


def _with_shorter_rows(shorter: Sequence[Held], cards: CardSet) -> Iterator[str]:
    """-> how much shorter they would have to be, at most."""
    hows = [(times, verdict(held, *cards)) for times, held in zip(SHORTER, shorter, strict=False)]
    yield from [f"rows 1/{times} as long (data.max_length)" for times, how in hows if how.is_fit][:1]


def _instead(held: Held, less: Sequence[tuple[str, Held]], cards: CardSet) -> Iterator[str]:
    """-> what would fit: more such cards, or one of the changes after which the stage holds less."""
    further = (verdict(held, num, cards.card_bytes) for num in FURTHER if num > cards.num)
    if more := next((how for how in further if how.is_fit), None):
        yield f"{more.num_cards} such cards"
    for words, changed in less:
        how = verdict(changed, *cards)
        if how.is_fit:
            yield f"{words} ({how.card_bytes / 1e9:.1f} GB on {_number(how.num_cards)})"


def _number(num_cards: int) -> str:
    return "one card" if num_cards == 1 else f"{num_cards} cards"
