"""The answer over each ablation: what its own contrasts come to, never whose number is the highest."""

from collections.abc import Iterator

from ablate.report.answer_facts import Facts, facts_of
from ablate.report.axis_text import Sentence, axis_answer, subject_of
from ablate.report.control_text import control_answer
from ablate.report.effect_text import gain_text
from ablate.report.formatting import listed, plural
from ablate.report.grid_text import axes_of, grid_answer
from ablate.report.mark_text import mark_texts
from ablate.report.row_words import rows_words
from ablate.report.words import capitalised, say, uncapitalised
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.effects import Effect


def answers(results: Results, ablation: AblationResult) -> list[str]:
    """-> sentences, the first one answers the question; none before anything can be compared."""
    return answers_from(facts_of(results, ablation))


def headline(results: Results, ablation: AblationResult) -> str:
    """-> the answer in one sentence, for page 1; before anything can be compared, that there is none yet."""
    return headline_from(facts_of(results, ablation))


def headline_from(facts: Facts) -> str:
    first = next(iter(answers_from(facts)), "")
    return first or next(_none_yet(facts))


def answers_from(facts: Facts) -> list[str]:
    metric = facts.ablation.primary
    if metric is None:
        return []
    sentences = [text for pair in facts.pairs for text in _of_pair(facts, metric, pair)]
    return (
        [*sentences, *mark_texts(facts.marks, facts.ablation.columns), *_refused(facts), *_not_all(facts)]
        if sentences
        else []
    )


def _of_pair(facts: Facts, metric: Metric, pair: str) -> list[str]:
    own = _own(facts, metric, pair)
    against = control_answer(facts, metric, pair)
    texts = [sentence.text for sentence in own]
    more = [*_elsewhere(facts, own[0]), *_gap(facts, own[0])] if own else ()
    sentences = [*texts[:1], *more, *texts[1:], *against]
    is_alone = len(facts.pairs) == 1
    return sentences if is_alone else [say("effect.pair", pair=pair, sentence=text) for text in sentences]


def _own(facts: Facts, metric: Metric, pair: str) -> list[Sentence]:
    """-> what the ablation's own contrasts come to by one metric."""
    effects = facts.own(metric, pair)
    stated = [
        Sentence(gain_text(facts.gain(one), subject_of(one)), one, is_of_plus=True)
        for one in effects
        if one.kind == "stated"
    ]
    axes = list(axes_of(effects).values())
    if not axes:
        return stated
    return [*stated, *(axis_answer(facts, axes[0]) if len(axes) == 1 else grid_answer(facts, effects))]


def _gap(facts: Facts, sentence: Sentence) -> Iterator[str]:
    """-> why the gap of the answer's row cannot be said, where the answer is that it is clearly ahead."""
    first = sentence.effect if sentence.is_of_plus else None
    if first and first.kind != "trend" and facts.gain(first).is_ahead and (why := facts.no_gap(first)):
        yield say("answer.no_gap", why=why)


def _elsewhere(facts: Facts, sentence: Sentence) -> Iterator[str]:
    """-> what the contrast of the answer comes to by the other metrics: where it is alike, and one where it is not."""
    first = sentence.effect
    if first is None:
        return
    gain = facts.gain(first)
    alike = [one for one in facts.effects if one.metric != first.metric and _is_alike(one, first)]
    others = [(one, facts.gain(one)) for one in alike if not facts.is_bent(one)]
    clear = [(one, other) for one, other in others if other.is_clear]
    same = [
        other for one, other in clear if gain.is_clear and gain.is_ahead is other.is_ahead and one.plus == first.plus
    ]
    if same:
        yield say("answer.same", metrics=listed(other.name for other in same))
    elif others and gain.is_clear and not clear:
        yield say("answer.only")
    for one, other in [pair for pair in clear if pair[1] not in same][:1]:
        subject = say("answer.it") if sentence.is_of_plus and one.plus == first.plus else subject_of(one)
        text = gain_text(other, subject)
        yield say("answer.but", sentence=uncapitalised(text)) if gain.is_clear else text


def _is_alike(one: Effect, other: Effect) -> bool:
    """Whether they ask the same of one pair of models; the best value along an axis may be another."""
    is_same = (one.kind, one.axis, one.minus) == (other.kind, other.axis, other.minus)
    pairs = {effect.rows[0][0].row.setting.pair for effect in (one, other) if effect.rows}
    return is_same and len(pairs) == 1 and (one.plus == other.plus or one.kind == "best")


def _refused(facts: Facts) -> Iterator[str]:
    refused = [one for one in facts.findings if one.verdict == "not comparable"]
    if not refused:
        return
    rows = rows_words(list({id(one.row): one.row for one in refused}.values()))
    why, metrics = listed(dict.fromkeys(one.why for one in refused)), dict.fromkeys(one.metric for one in refused)
    if len(metrics) == len(facts.ablation.columns):
        yield say("answer.refused", rows=capitalised(rows), why=why)
    else:
        yield say("answer.refused_by", metrics=listed(map(facts.name, metrics)), rows=rows, why=why)


def _not_all(facts: Facts) -> Iterator[str]:
    cells = facts.ablation.cells
    num = sum(cell.is_done for cell in cells)
    if num < len(cells):
        yield say("answer.not_all", done=num, all=plural(len(cells), "cell"))


def _none_yet(facts: Facts) -> Iterator[str]:
    cells = facts.ablation.cells
    num = sum(cell.is_done for cell in cells)
    if num < len(cells):
        yield say("answer.none_yet", done=num, all=plural(len(cells), "cell"))
    yield say("answer.nothing")
