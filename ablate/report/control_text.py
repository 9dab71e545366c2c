"""What an ablation's rows come to against their control: the whole answer where it has no axis."""

from collections.abc import Iterator, Sequence

from ablate.report.answer_facts import Facts
from ablate.report.effect_text import Gain, gain_of_finding, gain_text, gap_text
from ablate.report.formatting import plural
from ablate.report.row_words import are_distillations, reference_name, row_words, rows_words
from ablate.report.words import capitalised, say
from ablate.results.collect import Metric, RowResult
from ablate.results.verdicts import Finding

MOST_NAMED = 3
"""More rows are counted."""


def control_answer(facts: Facts, metric: Metric, pair: str) -> list[str]:
    """-> the rows of a pair against the control by one metric; none before any of them can be compared."""
    gains = _gains(facts, metric, pair)
    if len(gains) != 1:
        return list(_beside(facts, gains, metric))
    finding, gain = gains[0]
    row, control = row_words(finding.row), _control_name(facts, finding.row)
    if gain.verdict == "inconclusive" and gain.is_known and gain.value:
        situation = "control.ahead" if gain.value * gain.sign > 0 else "control.behind"
        numbers = gain.signed() | {"size": gain.unsigned_size}
        return [capitalised(say(situation, row=row, control=control, metric=gain.name, **numbers))]
    subject = say("setting.instead", plus=row, minus=control)
    return [gain_text(gain, subject, gap_text(facts.gap(finding.row, metric), metric) if gain.is_ahead else "")]


def _gains(facts: Facts, metric: Metric, pair: str) -> list[tuple[Finding, Gain]]:
    findings = [one for one in facts.findings if one.metric == metric and one.row.row.setting.pair == pair]
    both = [(one, gain_of_finding(one, facts.name(metric), facts.delta)) for one in findings]
    return [(one, gain) for one, gain in both if gain]


def _beside(facts: Facts, gains: Sequence[tuple[Finding, Gain]], metric: Metric) -> Iterator[str]:
    if not gains:
        return
    better = [one.row for one, gain in gains if gain.is_ahead]
    worse = [one.row for one, gain in gains if gain.is_behind]
    situation = "both" if better and worse else "better" if better else "worse" if worse else "alike"
    if len(better) + len(worse) == 1:
        yield _one(facts, *next(one for one in gains if one[1].is_clear), metric)
        return
    words = {"control": _control_name(facts, gains[0][0].row), "metric": facts.name(metric)}
    words |= {"better": _names(better), "worse": _names(worse, is_more=bool(better))}
    named = better or worse
    is_one = bool(named) and len(named) <= MOST_NAMED and are_distillations(named)
    yield say(f"control.{situation}", does="does" if is_one else "do", **words)


def _one(facts: Facts, finding: Finding, gain: Gain, metric: Metric) -> str:
    """-> the only row that is clearly ahead or behind, with its number."""
    names = {"control": _control_name(facts, finding.row), "metric": facts.name(metric)}
    situation = "control.one_better" if gain.is_ahead else "control.one_worse"
    return capitalised(say(situation, row=row_words(finding.row), **names, **gain.sizes()))


def _names(rows: Sequence[RowResult], *, is_more: bool = False) -> str:
    if len(rows) > MOST_NAMED:
        return plural(len(rows), "row")
    return rows_words(rows, is_more=is_more) if rows else ""


def _control_name(facts: Facts, row: RowResult) -> str:
    control = facts.ablation.control_of(row.row)
    return reference_name(control.row) if control else row.row.control
