"""What the study cost, and what it would have cost without sharing and without keeping teachers' answers."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ablate.core.text import duration
from ablate.planning.cost_model import CostModel
from ablate.planning.plan import Plan
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.formatting import plural
from ablate.report.markup import render
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.results.row_costs import tokens_of
from ablate.results.stage_times import ON_A_DEVICE, seconds_of
from ablate.store.stage import Stage


class Line(NamedTuple):
    """One sort of work, as shown."""

    work: str
    stages: str
    tokens: str
    """In the losses of its trainings, each as often as it counted."""
    time: str
    by_hand: str


@OVERVIEWS.register("costs", order=10)
def costs(results: Results) -> Piece | None:
    """-> a table of device time, by sort of work."""
    seconds = seconds_of(results)
    if not seconds:
        return None
    values = {"lines": lines(results.plan, seconds), "notes": list(notes(results.plan, seconds))}
    return Piece(render("costs.html", **values), render("costs.md", **values), fold=say("fold.costs"))


def lines(plan: Plan, seconds: Mapping[str, float]) -> list[Line]:
    """-> one a sort of work, and one of all together. `seconds`: key of each finished stage of work -> its time."""
    stages = [stage for stage in plan.all_stages if stage.key in seconds]
    by_hand = [stage for alone in plan.alone for stage in alone.stages if stage.key in seconds]
    kinds = [kind for kind in ON_A_DEVICE if any(stage.kind == kind for stage in stages)]
    of_kind = [_line(plan, ON_A_DEVICE[kind], seconds, _only(kind, stages), _only(kind, by_hand)) for kind in kinds]
    return [*of_kind, _line(plan, "all", seconds, stages, by_hand)]


def _only(kind: str, stages: Iterable[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.kind == kind]


def _line(plan: Plan, work: str, seconds: Mapping[str, float], here: list[Stage], by_hand: list[Stage]) -> Line:
    tokens = sum(tokens_of(plan, stage) for stage in here)
    totals = [sum(seconds[stage.key] for stage in stages) for stages in (here, by_hand)]
    hand = f"{duration(totals[1])} ({len(by_hand)})" if by_hand else "\N{EN DASH}"
    return Line(work, str(len(here)), f"{tokens:,}" if tokens else "\N{EN DASH}", duration(totals[0]), hand)


def notes(plan: Plan, seconds: Mapping[str, float]) -> Iterable[str]:
    """What the columns mean, and what a reader may take from them."""
    yield say("costs.note")
    saved = saved_by_caches(plan, seconds)
    if saved > 0:
        yield say("costs.caches", distillations=plural(len(plan.cached), "distillation"), saved=duration(saved))


def saved_by_caches(plan: Plan, seconds: Mapping[str, float]) -> float:
    """-> seconds: the teachers' forward passes that did not run, by the plan's costs, less the caches' own time."""
    with_caches, without = CostModel(plan), CostModel(replace(plan, caches=()))
    users = [stage for stage in plan.stages if stage.key in plan.cached and stage.key in seconds]
    spared = sum(seconds[stage.key] * (without.planned_s(stage) / with_caches.planned_s(stage) - 1) for stage in users)
    caches = {choice.cache.key for choice in plan.caches if choice.cache}
    return spared - sum(seconds.get(stage.key, 0.0) for stage in plan.all_stages if stage.key in caches)
