"""The answer where two settings were tried together: what each does on average, and whether the two interact."""

from collections.abc import Iterator, Sequence

from ablate.report.answer_facts import Facts
from ablate.report.axis_text import Sentence, axis_answer, subject_of
from ablate.report.effect_text import Gain, gain_text, verb_of
from ablate.report.setting_words import value_words
from ablate.report.words import say, uncapitalised, words_of
from ablate.results.effects import Effect
from ablate.study.names import value_text


def axes_of(effects: Sequence[Effect]) -> dict[tuple[str, ...], list[Effect]]:
    """-> the contrasts along each axis, the main question first."""
    by_axis: dict[tuple[str, ...], list[Effect]] = {}
    for effect in effects:
        if effect.kind not in ("interaction", "stated"):
            by_axis.setdefault(effect.axis, []).append(effect)
    return by_axis


def grid_answer(facts: Facts, effects: Sequence[Effect]) -> list[Sentence]:
    """-> the sentences, the answer first. `effects`: of two axes or more by one metric."""
    axes = list(axes_of(effects).values())
    return [*_axes(facts, axes), *map(Sentence, _interactions(facts, effects))]


def _axes(facts: Facts, axes: Sequence[Sequence[Effect]]) -> list[Sentence]:
    if len(axes) == 2 and all(len(own) == 1 and own[0].kind == "levels" for own in axes):
        one, other = axes[0][0], axes[1][0]
        if facts.is_asked_alone(other) and not facts.is_asked_alone(one):
            return [_averaged(facts, one, other), _averaged(facts, other, one), *map(Sentence, _alone(facts, other))]
        return [Sentence(_both(facts, one, other))]
    sentences = [axis_answer(facts, own)[:1] for own in axes]
    return [*(text for own in sentences for text in own), Sentence(say("grid.averaged"))]


def _averaged(facts: Facts, effect: Effect, other: Effect) -> Sentence:
    """-> one main effect. That which only this ablation asks for comes first."""
    names = words_of("others")
    others = names.get(other.axis[0] if len(other.axis) == 1 else "", names["any"])
    text = gain_text(facts.gain(effect), subject_of(effect), say("grid.averaged_over", others=others))
    return Sentence(text, effect, is_of_plus=True)


def _alone(facts: Facts, effect: Effect) -> Iterator[str]:
    """-> that what is unclear on average is clear with one value of the other setting, as another ablation shows."""
    clear = None if facts.gain(effect).is_clear else facts.clear_elsewhere(effect)
    if clear is None:
        return
    runs = {row.run for row, weight in clear.rows if weight}
    rows = [row for row in facts.ablation.rows if row.row.model == "distill" and row.run in runs]
    settings = [(path, value_text(value)) for row in rows for path, value in row.row.values.items()]
    beside = {(path, value) for path, value in settings if path not in effect.axis}
    if len(beside) == 1:
        sentence = uncapitalised(gain_text(facts.gain(clear), say("grid.it")))
        yield say("grid.alone", value=value_words(*beside.pop()), sentence=sentence)


def _both(facts: Facts, *effects: Effect) -> str:
    """-> two main effects, the clearer one first."""
    gains = sorted(((facts.gain(effect), effect) for effect in effects), key=lambda pair: not pair[0].is_clear)
    if all(gain.verdict == "inconclusive" and gain.is_known for gain, _ in gains):
        one, other = (gain.ends() for gain, _ in gains)
        subjects = dict(zip(("first", "second"), map(subject_of, effects), strict=True))
        ends = {**one, "other_low": other["low"], "other_high": other["high"]}
        return say("grid.neither", metric=gains[0][0].name, **subjects, **ends)
    first, second = (_clause(gain, subject_of(effect), has_place=n == 0) for n, (gain, effect) in enumerate(gains))
    return say("grid.both", first=first, second=second)


def _clause(gain: Gain, subject: str, *, has_place: bool) -> str:
    place = say("grid.place", metric=gain.name) if has_place else ""
    values = {"subject": subject, "metric": gain.name, "place": place}
    if gain.is_clear:
        return say(f"grid.{verb_of(gain)}", **values, **gain.sizes())
    if gain.verdict == "equivalent":
        return say("grid.equivalent", subject=subject, it=gain.name if has_place else say("grid.it"), delta=gain.limit)
    return say("grid.unclear", **values, **gain.ends()) if gain.is_known else say("grid.no_error", **values)


def _interactions(facts: Facts, effects: Sequence[Effect]) -> Iterator[str]:
    both = [(effect, facts.gain(effect)) for effect in effects if effect.kind == "interaction"]
    clear = [one for one in both if one[1].is_clear]
    for effect, gain in clear[:1]:
        first = next(own[0] for axis, own in axes_of(effects).items() if axis == effect.axis[: len(axis)])
        yield _dependence(first, effect, gain)
    if both and not clear:
        effect, gain = both[0]
        if all(one.verdict == "equivalent" for _, one in both):
            yield say("grid.independent", delta=gain.limit)
        elif gain.is_known:
            yield say("grid.depend_unclear", **gain.ends())


def _dependence(first: Effect, effect: Effect, gain: Gain) -> str:
    """-> by how much more the first setting is worth with one value of the second than with the other."""
    values = (effect.plus, effect.minus) if gain.value > 0 else (effect.minus, effect.plus)
    more, less = (value_words(effect.axis[-1], value) for value in values)
    words = {"subject": subject_of(first), "metric": gain.name, "value": more, "other": less}
    situation = "grid.depend" if verb_of(gain) in ("adds", "loses") else "grid.depend_unit"
    return say(situation, **words, **gain.sizes())
