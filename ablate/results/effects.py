"""What an ablation's own question asks: the values of its axes against each other, all else equal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.comparisons import Own, compared_in
from ablate.results.multiple_comparisons import adjusted_interval
from ablate.results.own_contrasts import EffectKind
from ablate.results.page_family import Family, family_of
from ablate.results.paired import Contrast
from ablate.results.verdicts import Verdict, sign_of, verdict


@dataclass(frozen=True)
class Effect:
    """One contrast of an ablation's own, by one metric: the rows of `plus` less those of `minus`."""

    metric: Metric
    kind: EffectKind
    axis: tuple[str, ...]
    """Paths of the settings that it compares; of an interaction those of both axes."""
    plus: str
    """The value whose rows count up, as a study writes it: `finetuned`; of a trend the highest. Of an interaction the
    value of the second axis at which the first one's contrast counts up; of a stated contrast what its study says."""
    minus: str
    rows: Sequence[tuple[RowResult, float]]
    """With their weights; in a trend some can be 0."""
    contrast: Contrast
    p_holm: float
    low: float
    """Of the interval that holds for the whole page with 95 %."""
    high: float
    verdict: Verdict
    """Of `plus` against `minus`; of an interaction it says no more than which way it goes."""
    left_out: Sequence[tuple[RowResult, str]] = field(default=())
    """Rows that cannot stand beside the others, and why."""
    tried: int = 1
    """Values that were tried against the study's own, `plus` the best that the data tell; all are corrected for."""
    name: str = ""
    """What the study calls it, where it states it."""

    @property
    def pair(self) -> str:
        return self.rows[0][0].row.setting.pair

    @property
    def is_ahead(self) -> bool:
        """Whether `plus` is on the better side."""
        return self.contrast.value * sign_of(self.rows[0][0], self.metric) > 0

    @property
    def deciding(self) -> tuple[str, float, float]:
        """-> level and ends of the interval that the verdict is read from: equivalence has its own."""
        if self.verdict == "equivalent":
            return ("90 %", *self.contrast.equivalence_interval)
        return "95 %", self.low, self.high

    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "pair": self.pair,
            "kind": self.kind,
            "name": self.name,
            "axis": list(self.axis),
            "plus": self.plus,
            "minus": self.minus,
            "rows": [{"row": row.row.name, "weight": weight} for row, weight in self.rows],
            "left_out": [{"row": row.row.name, "why": why} for row, why in self.left_out],
            "tried": self.tried,
            "metric": str(self.metric),
            **self.contrast.record(),
            "low": self.low,
            "high": self.high,
            "p": self.contrast.p,
            "p_holm": self.p_holm,
            "verdict": self.verdict,
        }


def effects_of(results: Results, ablation: AblationResult) -> tuple[Effect, ...]:
    """-> all metrics, the primary one first; of one metric the main question first, pair after pair."""
    name = f"effects/{ablation.name}"
    if name not in results.memo:
        family, delta = family_of(results), results.study.report.delta
        results.memo[name] = tuple(_effects(compared_in(results, ablation).own, family, delta))
    effects: tuple[Effect, ...] = results.memo[name]
    return effects


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json."""
    for ablation in results.ablations:
        yield from ({"ablation": ablation.name, **one.record()} for one in effects_of(results, ablation))


def _effects(owns: Sequence[Own], family: Family, delta: float) -> Iterator[Effect]:
    """-> each contrast, but of an axis's values against the study's own the best one alone.

    The best of those that are clearly ahead; else of those that are open, for one whose error is large may be ahead of
    another that is clearly behind; all tried values are in the family, so that it may be chosen by looking.
    """
    of_choice: dict[object, list[Own]] = {}
    for number, own in enumerate(owns):
        choice = (own.comparison.metric, own.design.axis, _pair(own)) if own.design.kind == "best" else number
        of_choice.setdefault(choice, []).append(own)
    for tried in of_choice.values():
        yield max((_effect(own, len(tried), family, delta) for own in tried), key=_rank)


def _pair(own: Own) -> str:
    return own.comparison.rows[0][0].row.setting.pair


def _rank(effect: Effect) -> tuple[int, float]:
    gain = effect.contrast.value * sign_of(effect.rows[0][0], effect.metric)
    place = {"inconclusive": 2, "equivalent": 1}.get(effect.verdict, 3 if gain > 0 else 0)
    return place, gain


def _effect(own: Own, tried: int, family: Family, delta: float) -> Effect:
    design, comparison, left_out = own
    contrast, metric = comparison.contrast, comparison.metric
    p_holm, level = family.p_holm[comparison.key], family.levels[comparison.key]
    low, high = adjusted_interval(contrast, level)
    return Effect(
        metric=metric,
        kind=design.kind,
        axis=design.axis,
        plus=design.plus,
        minus=design.minus,
        rows=comparison.rows,
        contrast=contrast,
        p_holm=p_holm,
        low=low,
        high=high,
        verdict=verdict(contrast, p_holm, delta, level=level, sign=sign_of(comparison.rows[0][0], metric)),
        left_out=left_out,
        tried=tried,
        name=design.name,
    )
