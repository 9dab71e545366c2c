"""What to try next: only what follows from trends and intervals."""

import math
from collections.abc import Iterator, Sequence

from ablate.core.text import duration
from ablate.report.answer_facts import Facts, facts_of
from ablate.report.axis_text import axis_name, subject_of, value_of
from ablate.report.formatting import listed, plural
from ablate.report.grid_text import axes_of
from ablate.report.row_words import row_words
from ablate.report.setting_words import axis_words
from ablate.report.words import say
from ablate.results.collect import Metric, Results
from ablate.results.effects import Effect
from ablate.results.more_seeds import more_seeds
from ablate.study.training_recipes import Distill

MOST_OPEN = 2
"""Open questions that are said."""
LEAST_VALUES = 3
"""Of two values neither is an edge."""


def next_steps(results: Results) -> list[str]:
    """-> sentences: cells to finish, axes to extend, questions that are open."""
    num = sum(not cell.is_done and cell.state != "diverged" for cell in results.cells)  # which no run brings further
    steps = [say("next.finish", num=plural(num, "cell"))] if num else []
    each = [facts_of(results, ablation) for ablation in results.ablations]
    steps += dict.fromkeys(text for facts in each for text in edges(facts, each))
    still_open = [_question(results, facts) for facts in each if _is_open(facts)]
    return [*steps, *_open(results, still_open)]


def edges(facts: Facts, study: Sequence[Facts] = ()) -> Iterator[str]:
    """-> for each ordered axis whose leading value is the lowest or highest of the study's, that it may go on."""
    metric = facts.ablation.primary
    for pair in facts.pairs if metric else ():
        for axis, effects in axes_of(facts.own(metric, pair)).items() if metric else ():
            values = _values(facts, axis)
            leading = _leading(facts, effects) if len(values) >= LEAST_VALUES else None
            if leading is None or _is_bound(axis[0], leading):
                continue
            tried = [*values, *(value for other in study for value in _values(other, axis))]
            if leading in (min(tried), max(tried)):
                situation = "next.higher" if leading == max(tried) else "next.lower"
                yield say(situation, axis=axis_words(axis[0]), value=f"{leading:g}")


def _values(facts: Facts, axis: Sequence[str]) -> list[float]:
    """-> those that were tried along a numeric axis; none along another."""
    rows = [row for row in facts.ablation.rows if row.row.model == "distill"] if len(axis) == 1 else []
    values = [row.row.values[axis[0]] for row in rows if axis[0] in row.row.values]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return sorted(set(numbers)) if len(numbers) == len(values) else []


def _leading(facts: Facts, effects: Sequence[Effect]) -> float | None:
    """-> the value that clearly does better than the study's own, or than all others; else the end of a clear trend."""
    by_kind = {effect.kind: (effect, facts.gain(effect)) for effect in effects}
    for kind in ("best", "trend"):
        effect, gain = by_kind.get(kind, (None, None))
        if effect and gain and gain.is_clear and not facts.is_bent(effect):
            return float(effect.plus if gain.is_ahead else effect.minus)
    return None


def _is_bound(path: str, value: float) -> bool:
    """Whether a setting can go no further: a KD ratio of 1."""
    field = Distill.model_fields.get(path.removeprefix("distill."))
    limits = (getattr(one, name, None) for one in (field.metadata if field else ()) for name in ("ge", "le"))
    return any(limit is not None and math.isclose(value, float(limit)) for limit in limits)


def _is_open(facts: Facts) -> bool:
    """Whether none of its own contrasts by the primary metric has a verdict."""
    own = [effect for pair in facts.pairs for effect in _own(facts, facts.ablation.primary, pair)]
    verdicts = [effect.verdict for effect in own] or [
        one.verdict for one in facts.findings if one.metric == facts.ablation.primary
    ]
    return bool(verdicts) and all(verdict == "inconclusive" for verdict in verdicts)


def _own(facts: Facts, metric: Metric | None, pair: str) -> list[Effect]:
    return facts.own(metric, pair) if metric else []


def _question(results: Results, facts: Facts) -> str:
    """-> `whether fine-tuning the student first helps`."""
    pair = facts.pairs[0]
    own = facts.own(facts.ablation.primary, pair) if facts.ablation.primary else []
    place = say("next.of_pair", pair=pair) if len(results.study.pairs) > 1 else ""
    if not own:
        subjects = [row_words(one.row) for one in facts.findings if one.metric == facts.ablation.primary]
        subject = subjects[0] if len(subjects) == 1 else say("row.distillation")
        return say("next.helps", subject=subject, pair=place)
    first = next((effect for effect in own if effect.kind != "trend"), own[0])
    if first.kind == "trend":
        return say("next.higher_helps", axis=axis_name(first), pair=place)
    if first.kind == "best":
        return say("next.another", axis=axis_name(first), default=value_of(first, first.minus), pair=place)
    return say("next.helps", subject=subject_of(first), pair=place)


def _open(results: Results, questions: Sequence[str]) -> Iterator[str]:
    if not questions:
        return
    rest = [say("next.others", num=len(questions) - MOST_OPEN)] if len(questions) > MOST_OPEN else []
    yield say("next.open", questions=listed([*questions[:MOST_OPEN], *rest]))
    more, seeds = more_seeds(results), results.study.seeds
    if more:
        several = ", ".join(str(seeds[0] + number) for number in range(more.seeds))
        yield say("next.seeds", seeds=several, hours=duration(more.seconds))
    yield say("next.questions")
