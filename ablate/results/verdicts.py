"""What a table may say: one procedure for every row and metric, corrected for all that the page looks at."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple, TypeAlias

from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.comparisons import WithControl, after_control, compared_in
from ablate.results.multiple_comparisons import ALPHA, adjusted_interval
from ablate.results.page_family import Family, family_of
from ablate.results.paired import Contrast
from ablate.results.question_scores import NotComparable
from ablate.results.sign_tests import flips, sign_flip_p

Verdict: TypeAlias = Literal["better", "worse", "equivalent", "inconclusive", "suggestive", "not comparable"]


@dataclass(frozen=True)
class Finding:
    """One arm against its control by one metric."""

    row: RowResult
    metric: Metric
    verdict: Verdict
    why: str = ""
    """Of what cannot be compared."""
    contrast: Contrast | None = None
    p_holm: float = math.nan
    low: float = math.nan
    """Of the interval that holds for the whole family with 95 %."""
    high: float = math.nan
    flips: str = ""
    """Questions won / lost, of 0/1 scores and one seed."""
    check_p: float = math.nan
    """McNemar's, or of flipped signs where scores are not 0/1; of one seed. A check, which decides nothing."""

    @property
    def is_ahead(self) -> bool:
        """Whether the arm is on the better side."""
        return self.contrast is not None and self.contrast.value * self.sign > 0

    @property
    def sign(self) -> int:
        """-1 where lower is better."""
        return sign_of(self.row, self.metric)

    @property
    def deciding(self) -> tuple[str, float, float]:
        """-> level and ends of the interval that the verdict is read from: equivalence has its own."""
        if self.verdict == "equivalent" and self.contrast:
            return ("90 %", *self.contrast.equivalence_interval)
        return "95 %", self.low, self.high

    def record(self) -> dict[str, object]:
        """For results.json."""
        contrast = self.contrast
        if contrast is None:
            return {"verdict": self.verdict, "not comparable": self.why}
        return {
            "verdict": self.verdict,
            **contrast.record(),
            "p": contrast.p,
            "visible": contrast.visible,
            "p_holm": self.p_holm,
            "low": self.low,
            "high": self.high,
            "flips": self.flips or None,
            "check_p": None if math.isnan(self.check_p) else self.check_p,
        }


class Ruler(NamedTuple):
    """The control against itself under other seeds: in no family, and without a verdict."""

    row: RowResult
    metric: Metric
    contrast: Contrast
    low: float
    """Of the interval at the family's level for this metric."""
    high: float


@dataclass(frozen=True)
class Findings:
    """One ablation's view of its page's family: every distilled row and every column, against the control."""

    all: tuple[Finding, ...]
    family: Family
    """Of the whole page, whose correction these are of."""
    rulers: tuple[Ruler, ...] = ()

    def find(self, row: RowResult, metric: Metric) -> Finding | None:
        return next((one for one in self.all if one.row is row and one.metric == metric), None)

    @property
    def size(self) -> int:
        """Comparisons of this ablation's rows with the control that the correction counts."""
        return sum(not math.isnan(one.p_holm) for one in self.all)

    @property
    def visible(self) -> Mapping[Metric, float]:
        """Of each metric the smallest difference that would have been seen, the median arm's."""
        by_metric: dict[Metric, list[float]] = {}
        for one in self.all:
            if one.contrast and one.contrast.se > 0:
                by_metric.setdefault(one.metric, []).append(one.contrast.visible)
        return {metric: median(values) for metric, values in by_metric.items()}

    @property
    def has_seed_noise(self) -> bool:
        """Whether the error of any comparison holds it."""
        return any(one.contrast.has_seed_noise for one in self.all if one.contrast)

    @property
    def of_questions_only(self) -> tuple[RowResult, ...]:
        """Rows whose errors hold the noise of questions alone."""
        rows = {id(one.row): one.row for one in self.all if one.contrast and not one.contrast.has_seed_noise}
        return tuple(rows.values())


def sign_of(row: RowResult, metric: Metric) -> int:
    """-> -1 where lower is better; of a row that is done."""
    higher_is_better = row.done[0].evaluation["tasks"].get(metric.task, {}).get("higher_is_better") or {}
    return -1 if higher_is_better.get(metric.name.partition(",")[0]) is False else 1


def findings_of(results: Results, ablation: AblationResult) -> Findings:
    """-> a verdict for every distilled row and column that has a control, as the family of the whole page has it.

    Two rows are equivalent within the study's own `delta`.
    """
    known: Findings | None = results.memo.get(ablation.name)
    if known is None:
        family, delta = family_of(results), results.study.report.delta
        compared = compared_in(results, ablation)
        findings = [_finding(one, family, delta) for one in compared.with_control]
        refused = [Finding(row, metric, "not comparable", why) for row, metric, why in compared.refused]
        rulers = tuple(_rulers(ablation, family))
        known = results.memo[ablation.name] = Findings((*findings, *refused), family, rulers)
    return known


def _rulers(ablation: AblationResult, family: Family) -> Iterator[Ruler]:
    for control, row in after_control(ablation):
        for metric in ablation.columns if row.is_replicate and control.is_trained else ():
            with suppress(NotComparable):  # its row in the table says why
                difference = row.difference(control, metric)
                yield Ruler(row, metric, difference, *adjusted_interval(difference, family.level_with_control(metric)))


def _finding(one: WithControl, family: Family, delta: float) -> Finding:
    row, metric, aligned, comparison = one
    flipped = flips(aligned)
    is_single = len(aligned.arm_SN) == len(aligned.control_SN) == 1
    check_p = flipped.p if flipped else sign_flip_p(aligned) if is_single else math.nan
    p_holm, level = family.p_holm[comparison.key], family.levels[comparison.key]
    low, high = adjusted_interval(comparison.contrast, level)
    return Finding(
        row=row,
        metric=metric,
        verdict=verdict(comparison.contrast, p_holm, delta, level=level, sign=sign_of(row, metric)),
        contrast=comparison.contrast,
        p_holm=p_holm,
        low=low,
        high=high,
        flips=f"{flipped.won}/{flipped.lost}" if flipped else "",
        check_p=check_p,
    )


def verdict(contrast: Contrast, p_holm: float, delta: float, *, level: float = 1 - ALPHA, sign: int = 1) -> Verdict:
    """One seed is never more than suggestive: another one could undo it.

    A difference is told only where Holm's p and the interval at the family's `level` both tell it: each holds for
    the whole family, but they are two procedures, and a reader must not see one deny what the other says.
    """
    is_significant = p_holm < ALPHA and abs(contrast.value) > contrast.half_width(level)
    if not contrast.has_seed_noise:
        return "suggestive" if is_significant else "inconclusive"
    if is_significant:
        return "better" if contrast.value * sign > 0 else "worse"
    return "equivalent" if contrast.is_within(delta) else "inconclusive"
