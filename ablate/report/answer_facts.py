"""What the answer of an ablation is written from: its contrasts, the control's, the gap recovered, marks, trends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ablate.report.effect_text import CLEAR, Gain, gain_of_effect, gap_text
from ablate.report.metric_names import metric_name
from ablate.results.best_rows import Contest, contests_of
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.effects import Effect, effects_of
from ablate.results.gap_recovered import Gap, gap_of
from ablate.results.marks import Mark, marks_of
from ablate.results.trends import trends_of
from ablate.results.verdicts import Finding, findings_of

GapOf = Callable[[RowResult, Metric], Gap | None]


@dataclass(frozen=True)
class Facts:
    """Of one ablation; by any metric, unless a question is asked of one."""

    ablation: AblationResult
    effects: Sequence[Effect]
    findings: Sequence[Finding]
    """Of its rows against the control."""
    gap: GapOf
    marks: Sequence[Mark] = ()
    bent: Sequence[Effect] = ()
    """Trends whose rows follow no straight line."""
    delta: float = 0.01
    contests: Sequence[Contest] = ()
    elsewhere: Sequence[Effect] = ()
    """The contrasts of the study's other ablations that have one axis each."""

    def own(self, metric: Metric, pair: str) -> list[Effect]:
        """-> the contrasts of a pair of models by one metric, the main question first."""
        effects = [one for one in self.effects if one.metric == metric and one.rows and one.pair == pair]
        return sorted(effects, key=self.is_asked_alone)

    def is_asked_alone(self, effect: Effect) -> bool:
        """Whether another ablation asks for nothing but its axis."""
        return any(effect.axis == other.axis for other in self.elsewhere)

    def clear_elsewhere(self, effect: Effect) -> Effect | None:
        """-> the contrast of the same axis in an ablation of nothing else, from rows that this ablation has too."""
        runs = {row.run for row in self.ablation.rows}
        alike = [other for other in self.elsewhere if _key(other) == _key(effect) and self.gain(other).is_clear]
        return next((other for other in alike if all(row.run in runs for row, weight in other.rows if weight)), None)

    def may_be_best(self, metric: Metric, pair: str) -> list[RowResult]:
        """-> the distilled rows of the set that holds the best one with 95 %; none where the control is in it."""
        contest = next((one for one in self.contests if (one.metric, one.pair) == (metric, pair)), None)
        rows = [one.row for one in contest.candidates if one.may_be_best] if contest else []
        return rows if all(row.row.model == "distill" for row in rows) else []

    @property
    def pairs(self) -> list[str]:
        """-> of its distilled rows, in table order."""
        return list(dict.fromkeys(row.row.setting.pair for row in self.ablation.rows if row.row.model == "distill"))

    def gain(self, effect: Effect) -> Gain:
        return gain_of_effect(effect, self.name(effect.metric), self.delta)

    def name(self, metric: Metric) -> str:
        return metric_name(metric, self.ablation.columns)

    def is_bent(self, effect: Effect) -> bool:
        """Whether a trend's rows follow no straight line."""
        return any(effect is one for one in self.bent)

    def gap_end(self, effect: Effect, *, of_plus: bool = True) -> str:
        """-> the end of a sentence: how much of the gap the one row of a side recovers; empty where it has several.

        Empty, too, where the page does not tell the row from the student alone.
        """
        rows = self._side(effect, of_plus=of_plus)
        findings = [one for one in self.findings if one.metric == effect.metric and any(one.row is row for row in rows)]
        return "" if any(map(self._is_open, findings)) else gap_text(self._gap(effect, of_plus=of_plus), effect.metric)

    def _is_open(self, finding: Finding) -> bool:
        control = self.ablation.control_of(finding.row.row)
        is_student = control is not None and control.row.model.startswith("student/")
        is_ahead = finding.verdict in CLEAR and finding.is_ahead
        return is_student and not is_ahead

    def no_gap(self, effect: Effect) -> str:
        """-> why the gap of the one row at its plus side is refused; empty where it is not."""
        gap = self._gap(effect, of_plus=True)
        return gap.why if gap else ""

    def _side(self, effect: Effect, *, of_plus: bool) -> list[RowResult]:
        return [row for row, weight in effect.rows if weight and (weight > 0) is of_plus]

    def _gap(self, effect: Effect, *, of_plus: bool) -> Gap | None:
        rows = self._side(effect, of_plus=of_plus)
        return self.gap(rows[0], effect.metric) if len(rows) == 1 else None


def facts_of(results: Results, ablation: AblationResult) -> Facts:
    bent = [trend.effect for trend in trends_of(results, ablation) if trend.is_bent]
    return Facts(
        ablation,
        effects_of(results, ablation),
        findings_of(results, ablation).all,
        partial(gap_of, results, ablation),
        marks_of(results, ablation),
        bent,
        results.study.report.delta,
        contests_of(results, ablation),
        [effect for other in results.ablations if other is not ablation for effect in _of_one_axis(results, other)],
    )


def _of_one_axis(results: Results, ablation: AblationResult) -> Sequence[Effect]:
    effects = [one for one in effects_of(results, ablation) if one.kind != "stated"]
    return effects if len({one.axis for one in effects}) == 1 else ()


def _key(effect: Effect) -> tuple[object, ...]:
    return effect.kind, effect.axis, effect.plus, effect.minus, effect.metric, effect.pair
