"""Which rows may be the best by one metric, as far as questions and seeds tell; never one rank over several metrics."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ablate.results.aligned_rows import AlignedRows, align_rows, distilled
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.multiple_comparisons import best, may_be_best, resampled
from ablate.results.paired import Contrast
from ablate.results.verdicts import sign_of


class Candidate(NamedTuple):
    """One row by one metric, beside those that compete with it."""

    row: RowResult
    probability: float
    """Of being the best: the share of resampled questions in which it is; question noise alone."""
    may_be_best: bool
    """Whether it belongs to the set that holds the best one with 95 %."""


class Contest(NamedTuple):
    """The distilled rows of one control, and the control unless it is a teacher, by one metric."""

    metric: Metric
    candidates: tuple[Candidate, ...]
    left_out: tuple[tuple[RowResult, str], ...]
    has_seed_noise: bool
    """Whether the set holds against another training seed too; the probability never does."""

    @property
    def pair(self) -> str:
        return self.candidates[-1].row.row.setting.pair

    @property
    def num_possible(self) -> int:
        return sum(candidate.may_be_best for candidate in self.candidates)


def contests_of(results: Results, ablation: AblationResult) -> tuple[Contest, ...]:
    """-> one for each control and column of a table in which two rows or more can be compared."""
    name = f"contests/{ablation.name}"
    if name not in results.memo:
        results.memo[name] = tuple(_contests(ablation))
    contests: tuple[Contest, ...] = results.memo[name]
    return contests


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json: a line for each row and metric."""
    for ablation in results.ablations:
        for contest in contests_of(results, ablation):
            for candidate in contest.candidates:
                yield {
                    "ablation": ablation.name,
                    "pair": candidate.row.row.setting.pair,
                    "row": candidate.row.row.name,
                    "metric": str(contest.metric),
                    "of": len(contest.candidates),
                    "probability_of_best": candidate.probability,
                    "may_be_best": candidate.may_be_best,
                    "has_seed_noise": contest.has_seed_noise,
                }


def _contests(ablation: AblationResult) -> Iterator[Contest]:
    for control, rows in distilled(ablation):
        competes = control is not None and control not in rows and not control.row.model.startswith("teacher/")
        for metric in ablation.columns:
            aligned = align_rows([*([control] if control and competes else []), *rows], metric)
            if len(aligned.rows) > 1:
                yield contest_of(metric, aligned)


def contest_of(metric: Metric, aligned: AlignedRows) -> Contest:
    """-> which of these rows, two or more, may be the best."""
    sign = sign_of(aligned.rows[0], metric)
    means_BR = resampled([sign * mean_N for mean_N in aligned.means], aligned.group_N)
    ahead = [_others(aligned, r, sign) for r in range(len(aligned.rows))]
    marks = zip(aligned.rows, best(means_BR).tolist(), may_be_best(means_BR, ahead), strict=True)
    has_seed_noise = all(contrast.has_seed_noise for others in ahead for contrast in others)
    return Contest(metric, tuple(Candidate(*mark) for mark in marks), aligned.left_out, has_seed_noise)


def _others(aligned: AlignedRows, r: int, sign: int) -> list[Contrast]:
    """-> every other row less row r, the right way up."""
    numbers = range(len(aligned.rows))
    return [aligned.contrast([sign * ((k == other) - (k == r)) for k in numbers]) for other in numbers if other != r]
