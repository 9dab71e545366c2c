"""How far a model's confidence is to be believed: reliability, expected calibration error, Brier score."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.choice_answers import UNKNOWN, ChoiceAnswers, answers_of
from ablate.results.chosen_rows import chosen_rows
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.paired import Floats
from ablate.results.question_scores import NotComparable

# N questions, K choices, M bins, G clusters, B resamples

METRIC = "acc"
"""The likeliest choice is the answer: no length is divided out, as acc_norm does."""
NUM_BINS = 10
RESAMPLES = 500


class Bin(NamedTuple):
    """The answers whose confidence lies between two tenths."""

    num: int
    confidence: float
    """Their mean."""
    accuracy: float


class Calibration(NamedTuple):
    """One row on one task."""

    row: RowResult
    task: str
    seeds: int
    num: int
    """Questions."""
    accuracy: float
    confidence: float
    ece: float
    """Mean over the seeds."""
    low: float
    """Of its 95 % interval, over questions; NaN of one question or cluster."""
    high: float
    adaptive: float
    """The same with bins that hold equally many answers."""
    by_chance: float
    """What a model whose confidence is exactly right would show on so many questions."""
    brier: float
    """NaN where the file does not say which choice is right."""
    bins: tuple[Bin, ...]
    """Of all seeds together; those that hold an answer."""


class Refused(NamedTuple):
    """A task of which no calibration can be read, and why."""

    task: str
    why: str


class Calibrations(NamedTuple):
    """Of one ablation."""

    all: tuple[Calibration, ...]
    refused: tuple[Refused, ...]
    num_left_out: int
    """Rows that were not read, so that a large study is reported in time."""


class Confidence(NamedTuple):
    """Of one model on one task."""

    top_N: Floats
    """The probability of the likeliest choice."""
    is_right_N: Floats
    group_N: NDArray[np.int64]
    brier: float


def calibrations_of(results: Results, ablation: AblationResult) -> Calibrations:
    """-> of its rows, the control and the teacher among them, and its tasks with choices."""
    name = f"calibration/{ablation.name}"
    if name not in results.memo:
        results.memo[name] = _calibrations(results, ablation)
    known: Calibrations = results.memo[name]
    return known


def records(results: Results) -> Iterator[dict[str, Any]]:
    """-> for results.json: a line for each row and task that was read."""
    for ablation in results.ablations:
        for one in calibrations_of(results, ablation).all:
            yield {
                "ablation": ablation.name,
                "pair": one.row.row.setting.pair,
                "row": one.row.row.name,
                "metric": str(Metric(one.task, METRIC)),
                "seeds": one.seeds,
                "n": one.num,
                "ece": one.ece,
                "low": one.low,
                "high": one.high,
                "adaptive": one.adaptive,
                "by_chance": one.by_chance,
                "brier": one.brier,
            }


def _calibrations(results: Results, ablation: AblationResult) -> Calibrations:
    tasks = tuple(dict.fromkeys(metric.task for metric in ablation.columns))
    rows, num_left_out = chosen_rows(results, ablation, tasks)
    known: list[Calibration] = []
    refused: dict[str, Refused] = {}
    for task in tasks:
        for row in rows:
            try:
                known.append(calibration(row, task))
            except NotComparable as reason:
                refused.setdefault(task, Refused(task, str(reason)))
    measured = {one.task for one in known}
    return Calibrations(tuple(known), tuple(one for one in refused.values() if one.task not in measured), num_left_out)


def calibration(row: RowResult, task: str) -> Calibration:
    """-> of a row that is done. Raises NotComparable, saying why, where a task has no confidence to be read."""
    answers = [answers_of(cell, task) for cell in row.done]
    if len({one.questions for one in answers}) > 1:
        raise NotComparable("other questions")
    seeds = [confidence(one) for one in answers]
    top, is_right = np.concatenate([one.top_N for one in seeds]), np.concatenate([one.is_right_N for one in seeds])
    low, high = _interval(seeds)
    return Calibration(
        row,
        task,
        len(seeds),
        len(seeds[0].top_N),
        float(is_right.mean()),
        float(top.mean()),
        float(np.mean([expected_error(one.top_N, one.is_right_N, equal_width(one.top_N)) for one in seeds])),
        low,
        high,
        float(np.mean([expected_error(one.top_N, one.is_right_N, equal_mass(one.top_N)) for one in seeds])),
        float(np.mean([_by_chance(one.top_N) for one in seeds])),
        float(np.mean([one.brier for one in seeds])),
        _bins(top, is_right),
    )


def confidence(answers: ChoiceAnswers) -> Confidence:
    """-> softmax over the choices' log-probabilities, and whether the likeliest is right.

    Brier (1950): the mean over questions of sum over choices of (p - 1 where right, else 0)^2.
    """
    _check(answers)
    shifted_NK = answers.logprobs_NK - np.nanmax(answers.logprobs_NK, 1, keepdims=True)
    p_NK = np.nan_to_num(np.exp(shifted_NK))
    p_NK /= p_NK.sum(1, keepdims=True)
    brier = math.nan
    if (answers.right_N != UNKNOWN).all():
        right_NK = np.arange(p_NK.shape[1]) == answers.right_N[:, None]
        brier = float(((p_NK - right_NK) ** 2).sum(1).mean())
    return Confidence(p_NK.max(1), answers.scores[METRIC], answers.group_N, brier)


def _check(answers: ChoiceAnswers) -> None:
    logprobs_NK = answers.logprobs_NK
    if METRIC not in answers.scores:
        raise NotComparable("it has no acc")
    if not answers.num or logprobs_NK.shape[1] < 2 or np.isnan(logprobs_NK[:, 1]).any():
        raise NotComparable("it has no choices")
    if not answers.is_binary(METRIC):
        raise NotComparable("its acc is a share of the probability, not right or wrong")
    if not np.isfinite(np.nanmax(logprobs_NK, 1)).all():
        raise NotComparable("a log-probability is no number")
    picked_N, known_N = np.nanargmax(logprobs_NK, 1), answers.right_N != UNKNOWN
    is_right_N = picked_N == answers.right_N
    if (is_right_N[known_N] != (answers.scores[METRIC][known_N] == 1)).any():
        raise NotComparable("the likeliest choice is not what its acc counts")


def equal_width(top_N: Floats) -> NDArray[np.int64]:
    """-> number of each answer's bin: M of equal width on [0, 1]; an edge belongs to the bin below it, as in Guo."""
    bins: NDArray[np.int64] = np.clip(np.ceil(top_N * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    return bins


def equal_mass(top_N: Floats) -> NDArray[np.int64]:
    """-> number of each answer's bin: M that hold equally many, by rank (Nixon et al. 2019)."""
    ranks = np.empty(len(top_N), np.int64)
    ranks[np.argsort(top_N, kind="stable")] = np.arange(len(top_N))
    return ranks * NUM_BINS // len(top_N)


def expected_error(top_N: Floats, is_right_N: Floats, bin_N: NDArray[np.int64]) -> float:
    """-> ECE = sum over bins of num / N * |accuracy - confidence| (Guo, Pleiss, Sun, Weinberger 2017)."""
    return float(np.abs(np.bincount(bin_N, is_right_N - top_N)).sum() / len(top_N))


def _by_chance(top_N: Floats) -> float:
    """-> E[ECE] where each answer is right with its confidence: sum over bins of sqrt(2/pi sum c (1 - c)) / N.

    A bin's sum of (right - c) is about normal with that variance, and E|x| of a normal law is sqrt(2/pi) sd.
    """
    variance_M = np.bincount(equal_width(top_N), top_N * (1 - top_N))
    return float(np.sqrt(2 / np.pi * variance_M).sum() / len(top_N))


def _bins(top: Floats, is_right: Floats) -> tuple[Bin, ...]:
    bin_N = equal_width(top)
    num_M, top_M, right_M = (np.bincount(bin_N, weights, NUM_BINS) for weights in (None, top, is_right))
    return tuple(
        Bin(int(num), float(confident / num), float(right / num))
        for num, confident, right in zip(num_M, top_M, right_M, strict=True)
        if num
    )


def _interval(seeds: Sequence[Confidence]) -> tuple[float, float]:
    """-> a 95 % interval of the mean ECE over seeds, from questions, or clusters, drawn whole and anew.

    An ECE of few questions is too high, and that of drawn ones higher still: the ends are the percentiles' upper one,
    and the lower of the percentiles' and the reflected ones (2 ECE - upper). 0 is the lower end where the ECE is within
    what drawing alone makes of bins without a gap. It holds 93 to 98 % in simulations, where the percentiles alone
    never hold an ECE of 0; docs/decisions.md.
    """
    sums = [_gaps(one) for one in seeds]
    size_G = np.bincount(seeds[0].group_N).astype(np.float32)
    if len(size_G) < 2:
        return math.nan, math.nan
    weight_BG = _draws(len(size_G))
    num_B = weight_BG @ size_G
    ece_B, alone_B, ece = np.zeros(RESAMPLES), np.zeros(RESAMPLES), 0.0
    for gap_GM in sums:
        gap_BM, gap_M = weight_BG @ gap_GM / num_B[:, None], gap_GM.sum(0) / size_G.sum()
        ece_B += np.abs(gap_BM).sum(1) / len(sums)
        alone_B += np.abs(gap_BM - gap_M).sum(1) / len(sums)
        ece += float(np.abs(gap_M).sum()) / len(sums)
    low, high = np.quantile(ece_B, (0.025, 0.975))
    is_calibrated = ece <= np.quantile(alone_B, 0.975)
    return 0.0 if is_calibrated else float(max(0.0, min(low, 2 * ece - high))), float(high)


def _gaps(one: Confidence) -> NDArray[np.float32]:
    """-> G x M: the sum of (right - confidence) of each cluster's answers in each bin."""
    place_N = one.group_N * NUM_BINS + equal_width(one.top_N)
    sums = np.bincount(place_N, one.is_right_N - one.top_N, (int(one.group_N.max()) + 1) * NUM_BINS)
    return sums.reshape(-1, NUM_BINS).astype(np.float32)


@lru_cache(maxsize=2)
def _draws(num: int) -> NDArray[np.float32]:
    """-> B x G: how often each of G clusters is drawn; the same for all rows."""
    drawing = np.random.default_rng(0)
    counts = (np.bincount(drawing.integers(num, size=num), minlength=num) for _ in range(RESAMPLES))
    return np.stack([count.astype(np.float32) for count in counts])
