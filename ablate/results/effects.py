"""What an ablation's own question asks: the values of its axes against each other, all else equal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.paired import Contrast
from ablate.results.verdicts import Verdict

EffectKind: TypeAlias = Literal["levels", "trend", "best", "interaction", "stated"]
"""levels: two values of an axis, averaged over the rest of the grid (a main effect, where there are two axes);
trend: along an ordered axis; best: its best value against the study's default; interaction: of two axes;
stated: one that the study's `contrasts:` says."""


@dataclass(frozen=True)
class Effect:
    """One contrast of an ablation's own, by one metric: the rows of `plus` less those of `minus`."""

    metric: Metric
    kind: EffectKind
    axis: tuple[str, ...]
    """Paths of the settings that it compares; two of an interaction."""
    plus: str
    """The value whose rows count up, as a study writes it: `finetuned`."""
    minus: str
    rows: Sequence[tuple[RowResult, float]]
    """With their weights."""
    contrast: Contrast
    p_holm: float
    low: float
    """Of the interval that holds for the whole page with 95 %."""
    high: float
    verdict: Verdict
    left_out: Sequence[tuple[RowResult, str]] = field(default=())
    """Rows that cannot stand beside the others, and why."""


def effects_of(results: Results, ablation: AblationResult) -> tuple[Effect, ...]:
    """-> all metrics, the primary one first; of one metric the main question first."""
    return ()
