"""What page 1 says beside the answers: how sure they are, what to ship, what is odd, what to try next, what it cost."""

from collections.abc import Iterator

from ablate.core.text import duration
from ablate.planning.row_notes import row_notes
from ablate.report.exhibits.costs import saved_by_caches
from ablate.report.formatting import plural
from ablate.report.mark_text import mark_texts
from ablate.report.metric_names import metric_name
from ablate.report.next_steps import next_steps
from ablate.report.row_words import row_words
from ablate.report.score_text import round_difference, score_text
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.marks import Mark, marks_of
from ablate.results.more_seeds import more_seeds
from ablate.results.shipping import Shipping, shipping_of
from ablate.results.stage_times import seconds_of


def how_sure(results: Results) -> list[str]:
    """-> sentences: the seeds, what more would show, what intervals hold for; none before a cell is done."""
    if not any(cell.is_done for cell in results.cells):
        return []
    return [*_seeds(results), say("sure.together")]


def ship_text(results: Results) -> list[str]:
    """-> a sentence a pair of models; none before anything is compared."""
    shippings = shipping_of(results)
    return [_shipping(results, one, is_alone=len(shippings) == 1) for one in shippings]


def odd_text(results: Results) -> list[str]:
    """-> sentences: what is missing, what went wrong with a training, what was cut of the rows."""
    known: set[object] = set()
    marks = [text for one in results.ablations for text in mark_texts(_news(results, one, known), one.columns)]
    return [*marks, *row_notes(results.plan)]


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
    metric = next((ablation.primary for ablation in results.ablations if ablation.primary), None)
    if more and metric:
        visible, hours = round_difference(metric, more.visible), duration(more.seconds)
        values = {"seeds": more.seeds, "visible": visible, "metric": _named(results, metric), "hours": hours}
        yield say("sure.more_seeds" if more.trainings else "sure.at_best", **values)


def _shipping(results: Results, one: Shipping, *, is_alone: bool) -> str:
    score = one.cheapest.score(one.metric)
    values = {"row": row_words(one.cheapest), "metric": _named(results, one.metric)}
    if len(one.equals) == 1 and score:
        situation = "ship.alone_of_some" if one.left_out else "ship.alone"
        text = say(situation, **values, score=score_text(one.metric, score.value))
    else:
        text = say("ship.cheapest", **values, num=len(one.equals))
    return text if is_alone else say("ship.pair", pair=one.cheapest.row.setting.pair, sentence=text)


def _costs(results: Results, seconds: dict[str, float]) -> Iterator[str]:
    whole = sum(seconds.values())
    yield say("cost.all", time=duration(whole), stages=plural(len(seconds), "stage"))
    by_hand = sum(seconds.get(stage.key, 0.0) for alone in results.plan.alone for stage in alone.stages)
    if by_hand > whole:
        yield say("cost.by_hand", by_hand=duration(by_hand))
    saved = saved_by_caches(results.plan, seconds)
    if saved > 0:
        yield say("cost.caches", saved=duration(saved))


def _named(results: Results, metric: Metric) -> str:
    columns = next(ablation.columns for ablation in results.ablations if metric in ablation.columns)
    return metric_name(metric, columns)
