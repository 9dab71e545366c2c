"""What page 1 says beside the answers: how sure they are, what to ship, what is odd, what to try next, what it cost."""

import re
from collections.abc import Iterator

from ablate.core.text import duration
from ablate.planning.row_notes import row_notes
from ablate.report.exhibits.costs import saved_by_caches
from ablate.report.exhibits.front_groups import primary_of
from ablate.report.formatting import listed, plural
from ablate.report.mark_text import mark_texts
from ablate.report.metric_names import metric_name
from ablate.report.next_steps import next_steps
from ablate.report.odd_text import guesses, oddities
from ablate.report.row_words import row_words, student_words
from ablate.report.score_text import round_difference, score_text
from ablate.report.words import say, words_of
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.marks import Mark, marks_of
from ablate.results.more_seeds import more_seeds
from ablate.results.row_costs import row_cost
from ablate.results.shipping import Shipping, shipping_of
from ablate.results.stage_times import seconds_of, took_of

MOST_OTHERS = 2
"""Rows beside the one to ship that are named."""


def how_sure(results: Results) -> list[str]:
    """-> sentences: what decides, the seeds, what more would show, what intervals hold for; none before a cell is."""
    if not any(cell.is_done for cell in results.cells):
        return []
    metric = primary_of(results)
    decides = [say("sure.metric", metric=_named(results, metric), kind=_kind(metric))] if metric else []
    return [*decides, *_seeds(results), say("sure.questions" if len(results.study.seeds) == 1 else "sure.both")]


def ship_text(results: Results) -> list[str]:
    """-> a sentence a pair of models; none before anything is compared."""
    shippings = shipping_of(results)
    texts = [_shipping(results, one, is_alone=len(shippings) == 1) for one in shippings]
    is_done = all(cell.is_done for cell in results.cells)
    return texts if is_done else [f"{text} {say('ship.not_done')}" for text in texts]


def odd_text(results: Results) -> list[str]:
    """-> sentences: what went wrong with a training, what was cut of the rows, what nobody would expect."""
    guessing, metrics = guesses(results)
    known: set[object] = set()
    marks = []
    for ablation in results.ablations:
        new = _news(results, ablation, known)
        marks += mark_texts([one for one in new if one.kind != "chance" or one.metric not in metrics], ablation.columns)
    return [*guessing, *marks, *oddities(results), *row_notes(results.plan)]


def _news(results: Results, ablation: AblationResult, known: set[object]) -> list[Mark]:
    """-> the marks of a table that no earlier one has of the same models; `known` is added to."""
    by_key = {(mark.row.run, mark.kind, mark.metric): mark for mark in marks_of(results, ablation)}
    new = [mark for key, mark in by_key.items() if key not in known]
    known.update(by_key)
    return new


def next_text(results: Results) -> list[str]:
    """-> sentences: what follows from trends and intervals, and nothing else."""
    return next_steps(results)


def cost_text(results: Results) -> list[str]:
    """-> sentences: device time, and what sharing saved of it; none before a stage is done."""
    seconds = seconds_of(results)
    return list(_costs(results, seconds)) if seconds else []


def _seeds(results: Results) -> Iterator[str]:
    seeds = len(results.study.seeds)
    if seeds == 1:
        yield say("sure.one_seed")
        yield from _more_seeds(results)
        return
    rows = [row for ablation in results.ablations for row in ablation.rows if row.done and len(row.cells) > 1]
    trained = {row.cells[0].cell.evaluate.key: row for row in rows}
    whole, once = (sum(len(row.done) == num for row in trained.values()) for num in (seeds, 1))
    is_whole = whole == len(trained)
    yield (
        say("sure.seeds", seeds=seeds) if is_whole else say("sure.some_seeds", num=whole, all=len(trained), seeds=seeds)
    )
    if once:
        yield say("sure.some_once", num=once, all=len(trained))


def _more_seeds(results: Results) -> Iterator[str]:
    more = more_seeds(results)
    metric = primary_of(results)
    if more and metric:
        values = {"seeds": more.seeds, "hours": duration(more.seconds)}
        values["visible"] = round_difference(metric, more.visible)
        yield say("sure.more_seeds" if more.trainings else "sure.at_best", **values)


def _shipping(results: Results, one: Shipping, *, is_alone: bool) -> str:
    score = one.cheapest.score(one.metric)
    values = {
        "student": student_words(one.cheapest),
        "metric": _named(results, one.metric),
        "score": score_text(one.metric, score.value) if score else "",
        "Ship": say("ship.Ship" if is_alone else "ship.ship"),
    }
    others = [row for row in one.equals if row is not one.cheapest]
    cost = row_cost(results, one.cheapest)
    time = say("ship.time", time=duration(cost.whole_s)) if cost and one.cheapest.is_trained else ""
    situation = "ship.cheapest" if one.cheapest.row.model == "distill" else "ship.reference"
    if not others:
        text = say("ship.alone_of_some" if one.left_out else "ship.alone", **values)
    else:
        text = say(situation, **values, num=len(one.equals), time=time)
    if 0 < len(others) <= MOST_OTHERS:
        text += " " + say("ship.others", rows=listed(map(row_words, others)))
    return text if is_alone else say("ship.pair", pair=_pair(results, one.cheapest.row.setting.pair), sentence=text)


def _pair(results: Results, name: str) -> str:
    """-> `small (311k to 105k)`."""
    label = results.study.pairs[name].label
    return say("ship.named_pair", name=name, label=label) if label else name


def _costs(results: Results, seconds: dict[str, float]) -> Iterator[str]:
    whole = sum(seconds.values())
    yield say("cost.all", time=duration(whole), devices=_devices(results), stages=plural(len(seconds), "stage"))
    by_hand = sum(seconds.get(stage.key, 0.0) for alone in results.plan.alone for stage in alone.stages)
    if by_hand > whole:
        yield say("cost.by_hand", by_hand=duration(by_hand))
    saved = saved_by_caches(results.plan, seconds)
    if saved > 0:
        yield say("cost.caches", saved=duration(saved))


def _devices(results: Results) -> str:
    """-> ` (Intel Xeon Processor)`: their models, without trade marks and clocks."""
    models = {re.sub(r"\((R|TM)\)| CPU\b| @.*", "", took.device) for took in took_of(results).values()}
    return say("cost.devices", models=listed(sorted(models))) if all(models) else ""


def _kind(metric: Metric) -> str:
    """-> ` (accuracy)`: what a metric is, where its name does not say."""
    kind = words_of("kind").get(metric.name.partition(",")[0], "")
    return f" ({kind})" if kind else ""


def _named(results: Results, metric: Metric) -> str:
    columns = next(ablation.columns for ablation in results.ablations if metric in ablation.columns)
    return metric_name(metric, columns)
