"""Scores over questions and seeds, and what of them may be compared."""

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ablate.results.asking_text import condition

NAN = math.nan
NOT_KEPT = "no score is kept for each question"


@dataclass(frozen=True, eq=False)
class Questions:
    """Those of one task, in the order of a file of samples. Files with the same questions share one object."""

    numbers: tuple[int, ...]
    hashes: tuple[str, ...]
    """Of each question, so that equal numbers of different questions are never paired."""
    clusters: tuple[str | None, ...]
    """What questions share (a source, a concept), where the task says; None: it shares nothing with any other."""


class QuestionScores(NamedTuple):
    """One model's score on every question, by one metric."""

    questions: Questions
    scores: Sequence[float]


class Summary(NamedTuple):
    """One score over the seeds of a row."""

    value: float
    stderr: float | None
    """lm-eval's, over questions; of a single seed only."""
    sd: float | None
    """Standard deviation over seeds (ddof = 1); None for one seed."""
    seeds: int


class NotComparable(ValueError):
    """Two results that were not made from the same questions in the same way; the message says what differs."""


def check_alike(one: Mapping[str, Any], other: Mapping[str, Any], task: str) -> None:
    """Raises NotComparable where two evaluations were not made alike: scores move with batch size and dtype."""
    for name in ("limit", "dtype", "batch_size", "num_fewshot", "lm_eval"):
        if condition(one, task, name) != condition(other, task, name):
            raise NotComparable(f"other {name.replace('_', ' ')}")
    for name, difference in (("version", "other task version"), ("prompts", "other prompts")):
        if one["tasks"].get(task, {}).get(name) != other["tasks"].get(task, {}).get(name):
            raise NotComparable(difference)


def over_seeds(values: Sequence[float], stderr: float | None) -> Summary:
    """-> mean and spread of one score over the seeds of a row; `stderr` is told for a single seed."""
    if len(values) == 1:
        return Summary(values[0], stderr, None, 1)
    return Summary(mean(values), None, sd(values), len(values))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else NAN


def sd(values: Sequence[float]) -> float:
    """Standard deviation with ddof = 1; NaN for fewer than two values."""
    if len(values) < 2:
        return NAN
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def read_question_scores(path: Path, metric: str) -> QuestionScores:
    """-> a model's score on every question, from the samples of a committed evaluation. Raises NotComparable for none.

    What is committed does not change: a file is read once, for all its metrics.
    """
    questions, scores = _read(path)
    if metric not in scores:
        raise NotComparable(NOT_KEPT)
    return QuestionScores(questions, scores[metric])


@cache
def questions_of(numbers: tuple[int, ...], hashes: tuple[str, ...], clusters: tuple[str | None, ...]) -> Questions:
    """-> the one object of these."""
    return Questions(numbers, hashes, clusters)


class KeptScores(NamedTuple):
    """All that a file of samples says of scores."""

    questions: Questions
    by_metric: Mapping[str, Sequence[float]]
    """Of each metric that all questions have."""


_read_ahead: dict[Path, KeptScores] = {}
"""What other processes have read."""


def remember(path: Path, kept: KeptScores) -> None:
    """Takes over what another process has read."""
    numbers, hashes, clusters = kept.questions.numbers, kept.questions.hashes, kept.questions.clusters
    _read_ahead[path] = kept._replace(questions=questions_of(numbers, hashes, clusters))


def _read(path: Path) -> KeptScores:
    return _read_ahead.get(path) or read_kept_scores(path)


@cache
def read_kept_scores(path: Path) -> KeptScores:
    """Raises NotComparable where none are kept."""
    try:
        samples = json.loads(f"[{','.join(path.read_text().splitlines())}]")
        by_number = {sample["doc_id"]: sample for sample in samples}
        samples = samples if len(samples) == len(by_number) else list(by_number.values())
        clusters = [sample.get("cluster") for sample in samples]
        texts = tuple(None if cluster is None else str(cluster) for cluster in clusters)
        questions = questions_of(tuple(by_number), tuple([sample["doc_hash"] for sample in samples]), texts)
        return KeptScores(questions, _by_metric(samples, "finer") | _by_metric(samples, "scores"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotComparable(NOT_KEPT) from error


def _by_metric(samples: Sequence[Mapping[str, Any]], part: str) -> dict[str, Sequence[float]]:
    """-> of each metric that every sample has in this part its scores."""
    scores = [sample.get(part, {}) for sample in samples]
    names = [name for name in (scores[0] if scores else ()) if all(name in one for one in scores)]
    return {name: array("d", [float(one[name]) for one in scores]) for name in names}


@cache
def is_mean(path: Path, metric: str, value: float) -> bool:
    """Whether a score is the mean of what is kept of its questions; a perplexity is something else of them.

    What differs question by question is then not its difference, and need not even have its sign. Raises NotComparable
    where nothing is kept.
    """
    scores = read_question_scores(path, metric).scores
    return not scores or math.isclose(mean(scores), value, rel_tol=1e-6, abs_tol=1e-9)
