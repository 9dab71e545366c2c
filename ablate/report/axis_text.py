"""The answer along one axis: which of its values does best, or whether it matters, in a sentence or two."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ablate.report.answer_facts import Facts
from ablate.report.effect_text import Gain, gain_text
from ablate.report.formatting import listed
from ablate.report.score_text import is_share
from ablate.report.setting_words import axis_words, bare_value, contrast_words, value_words
from ablate.report.words import capitalised, say
from ablate.results.effects import Effect
from ablate.study.names import value_text

Compared: TypeAlias = tuple[Effect, Gain]


class Sentence(NamedTuple):
    """A sentence of an answer."""

    text: str
    effect: Effect | None = None
    """The one contrast that it is about: what other metrics say of that can be said after it."""
    is_of_plus: bool = False
    """Whether its subject is the value at the plus side, which `it` then stands for."""


def subject_of(effect: Effect) -> str:
    """-> what one does who takes the one value and not the other: `fine-tuning the teacher first`."""
    if len(effect.axis) == 1:
        return contrast_words(effect.axis[0], effect.plus, effect.minus)
    return say("setting.instead", plus=effect.plus, minus=effect.minus)


def axis_name(effect: Effect) -> str:
    return axis_words(effect.axis[0]) if len(effect.axis) == 1 else say("setting.several")


def value_of(effect: Effect, value: str) -> str:
    """-> one of its values where the setting is named beside it."""
    return bare_value(effect.axis[0], value) if len(effect.axis) == 1 else value


def _whole_value(effect: Effect, value: str) -> str:
    return value_words(effect.axis[0], value) if len(effect.axis) == 1 else value


def axis_answer(facts: Facts, effects: Sequence[Effect]) -> list[Sentence]:
    """-> the sentences, the answer first. `effects`: of one axis by one metric."""
    beside = [(effect, facts.gain(effect)) for effect in effects if effect.kind in ("levels", "best")]
    trend = next(((effect, facts.gain(effect)) for effect in effects if effect.kind == "trend"), None)
    if len(effects) == 1 and effects[0].kind == "levels":
        effect, gain = beside[0]
        text = gain_text(gain, subject_of(effect), facts.gap_end(effect) if gain.is_ahead else "")
        return [Sentence(text, effect, is_of_plus=True)]
    if trend and facts.is_bent(trend[0]):
        return (
            _star(facts, beside)
            if beside
            else [_trend(*trend) if trend[1].verdict == "inconclusive" else _bent(*trend)]
        )
    if trend is None or not beside:
        return _star(facts, beside) if beside else [_trend(*trend)] if trend else []
    return _both(facts, trend, beside)


def _both(facts: Facts, trend: Compared, beside: Sequence[Compared]) -> list[Sentence]:
    """-> of the line and of the values against the study's own, first what answers."""
    star = _star(facts, beside)
    if not trend[1].is_clear:
        return star or [_trend(*trend)]
    effect, gain = beside[0]
    if len(beside) == 1 and gain.verdict == "inconclusive" and gain.is_known:
        if use := _use(facts, effect, gain, trend):
            return use
        ends = {"open_low": gain.ends()["low"], "open_high": gain.ends()["high"]}
        values = {"value": value_of(effect, effect.plus), "default": value_of(effect, effect.minus), **ends}
        return [_trend(*trend, values)]
    is_answered = any(one.is_ahead for _, one in beside) or all(one.is_behind for _, one in beside)
    return [*star, _trend(*trend)] if is_answered else [_trend(*trend), *star]


def _star(facts: Facts, beside: Sequence[Compared]) -> list[Sentence]:
    """-> of contrasts that all have the same value at their minus side."""
    best = max(beside, key=lambda one: (one[1].is_ahead, one[1].value * one[1].sign))
    if best[1].is_ahead:
        others = [effect for effect, gain in beside if gain.is_ahead and effect is not best[0]]
        text = gain_text(best[1], subject_of(best[0]), facts.gap_end(best[0]))
        return [Sentence(text, best[0], is_of_plus=True), *map(Sentence, _also(others))]
    if all(gain.is_behind for _, gain in beside):
        return [Sentence(_default_best(facts, *best), best[0] if len(beside) == 1 else None)]
    if all(gain.verdict == "equivalent" for _, gain in beside):
        situation = "equivalent" if best[0].kind == "best" else "no_worse"
        return [Sentence(_beside_default(situation, *best, {"delta": best[1].limit}), best[0])]
    behind = [one for one in beside if one[1].is_behind]
    if behind:
        worst = min(behind, key=lambda one: one[1].value * one[1].sign)
        return [Sentence(_beside_default("no_better", *worst, worst[1].sizes()))]
    if not best[1].is_known:
        return []
    return _use(facts, *best) or [Sentence(_beside_default("unclear", *best, best[1].signed()), best[0])]


def _use(facts: Facts, effect: Effect, gain: Gain, trend: Compared | None = None) -> list[Sentence]:
    """-> the values of which one is the best, where those are several and not all, and what lies between two of them.

    `trend`: a clear one.
    """
    values = _choice(facts, effect)
    if not {effect.plus, effect.minus} <= set(values):
        return []
    between = {"value": value_of(effect, effect.plus), "default": value_of(effect, effect.minus), "metric": gain.name}
    words = {"values": _either(effect, values), "metric": gain.name}
    rest = Sentence(capitalised(say("axis_answer.between", **between, **gain.signed())))
    if trend is None:
        return [Sentence(say("axis_answer.use", **words)), rest]
    if not is_share(gain.metric) or gain.sign < 0:
        return [Sentence(say("axis_answer.use", **words)), _trend(*trend), rest]
    ends = {"high_value": trend[0].plus, "low_value": trend[0].minus}
    situation = "use_higher" if trend[1].is_ahead else "use_lower"
    return [Sentence(say(f"axis_answer.{situation}", **words, **ends, **trend[1].sizes())), rest]


def _choice(facts: Facts, effect: Effect) -> list[str]:
    """-> the values of an ablation's one axis that may be the best; none where they are all."""
    rows = [row for row in facts.ablation.rows if row.row.model == "distill"]
    if len(effect.axis) != 1 or any(row.row.values.keys() != set(effect.axis) for row in rows):
        return []
    best = [value_text(row.row.values[effect.axis[0]]) for row in facts.may_be_best(effect.metric, effect.pair)]
    return best if len(best) < len({row.row.name for row in rows}) else []


def _either(effect: Effect, values: Sequence[str]) -> str:
    """-> `a KD ratio of 0.75 or 1.0`."""
    bare = [value_of(effect, value) for value in values]
    several = listed(bare, "or")
    return several if bare != list(values) else _whole_value(effect, several)


def _default_best(facts: Facts, effect: Effect, gain: Gain) -> str:
    words = {
        "best": capitalised(_whole_value(effect, effect.minus)),
        "next": value_of(effect, effect.plus),
        "metric": gain.name,
    }
    return say("axis_answer.default_best", **words, **gain.sizes(), more=facts.gap_end(effect, of_plus=False))


def _beside_default(situation: str, effect: Effect, gain: Gain, values: Mapping[str, str]) -> str:
    words = {"default": value_of(effect, effect.minus), "value": value_of(effect, effect.plus), "metric": gain.name}
    words["best"] = capitalised(_whole_value(effect, effect.plus))
    return say(f"axis_answer.{situation}", axis=axis_name(effect), **words, **values)


def _also(effects: Sequence[Effect]) -> Iterator[str]:
    if effects:
        values = listed(value_of(effect, effect.plus) for effect in effects)
        yield say("axis_answer.also", does="do" if len(effects) > 1 else "does", values=values)


def _bent(effect: Effect, gain: Gain) -> Sentence:
    """-> of a clear or a level trend whose scores follow no straight line: a value between may do better."""
    ends = {"high_value": effect.plus, "low_value": effect.minus}
    return Sentence(say("axis_answer.bent", axis=axis_name(effect), metric=gain.name, **ends))


def _trend(effect: Effect, gain: Gain, beside: Mapping[str, str] | None = None) -> Sentence:
    """-> what a higher value does; `beside`: of the value that comes nearest to the study's own, where that is open."""
    ends = {"high_value": effect.plus, "low_value": effect.minus}
    if gain.verdict == "equivalent":
        text = say("axis_answer.level", axis=axis_name(effect), metric=gain.name, **ends, delta=gain.limit)
        return Sentence(text, effect)
    if not gain.is_known:
        return Sentence(gain_text(gain, subject_of(effect)), effect)
    situation = ("higher" if gain.is_ahead else "lower") if gain.is_clear else "flat"
    if beside:
        situation = f"{situation}_open"
    values = {**(gain.sizes() if gain.is_clear else gain.signed()), **(beside or {})}
    text = say(f"axis_answer.{situation}", axis=axis_name(effect), metric=gain.name, **ends, **values)
    return Sentence(text, effect, is_of_plus=gain.value * gain.sign > 0)
