"""A row's score with its own 95 % interval: of questions and, with several seeds, of training noise in one."""

import math
from typing import NamedTuple

from ablate.results.aligned_rows import align_rows
from ablate.results.collect import Metric, RowResult
from ablate.results.paired import t_quantile
from ablate.results.question_scores import Summary


class RowInterval(NamedTuple):
    """One row by one metric."""

    value: float
    """Mean over the seeds that are done."""
    low: float
    """NaN where no error is known: one question, a metric without a standard error."""
    high: float
    has_seed_noise: bool
    """Whether another seed is in it too; of a row without a training there is none to be had."""
    seeds: tuple[float, ...]
    """The score of each seed."""

    @property
    def error(self) -> float:
        """A quarter of its width: about a standard error."""
        return (self.high - self.low) / 4


def interval_of(row: RowResult, metric: Metric) -> RowInterval | None:
    """-> None of a row without this score.

    value -+ t(df) SE of the contrast that holds the row alone (`paired.linear`); where every question was scored
    alike, the exact limits of a share (Clopper and Pearson 1934). A metric that is no mean over its
    questions, a perplexity say, has lm-eval's own standard error and that of the mean over its seeds.
    """
    score = row.score(metric)
    if score is None:
        return None
    seeds = tuple(cell.scores[metric].value for cell in row.done if metric in cell.scores)
    aligned = align_rows([row], metric)
    if not aligned.rows:
        half, has_seed_noise = _half_of_summary(row, metric, score)
        return RowInterval(score.value, score.value - half, score.value + half, has_seed_noise, seeds)
    contrast = aligned.contrast([1.0])
    if contrast.se:
        return RowInterval(score.value, *contrast.interval(), contrast.has_seed_noise, seeds)
    half = contrast._replace(num_differing=0).unseen(0.95)
    return RowInterval(score.value, max(score.value - half, 0), min(score.value + half, 1), False, seeds)


def _half_of_summary(row: RowResult, metric: Metric, score: Summary) -> tuple[float, bool]:
    """-> half of the interval: V = SE^2 + sd^2 / S, the former known exactly (Satterthwaite 1946)."""
    stderr = next(cell.scores[metric].stderr for cell in row.done if metric in cell.scores)
    if stderr is None or not math.isfinite(score.value):
        return math.nan, False
    of_seeds = score.sd**2 / score.seeds if score.sd else 0.0
    variance = stderr**2 + of_seeds
    df = (score.seeds - 1) * (variance / of_seeds) ** 2 if of_seeds else math.inf
    return t_quantile(0.975, df) * math.sqrt(variance), score.seeds > 1
