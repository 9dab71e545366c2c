"""Scores over questions and seeds, and what of them may be compared."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from ablate.results.asking_text import condition

NAN = math.nan


class QuestionScore(NamedTuple):
    """One model's score on one question."""

    doc_hash: str
    """Of the question, so that equal ids of different questions are never paired."""
    cluster: str | None
    """What questions share (a source, a concept), where the task says; None: it shares nothing with any other."""
    score: float


QuestionScores = Mapping[int, QuestionScore]


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


@lru_cache(maxsize=128)
def read_question_scores(path: Path, metric: str) -> QuestionScores:
    """-> a model's score on every question, from the samples of a committed evaluation. Raises NotComparable for none.

    Cached, for one evaluation is in many comparisons; what is committed does not change.
    """
    try:
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        return {sample["doc_id"]: _answer(sample, metric) for sample in samples}
    except (OSError, ValueError, KeyError) as error:
        raise NotComparable("no score is kept for each question") from error


@cache
def is_mean(path: Path, metric: str, value: float) -> bool:
    """Whether a score is the mean of what is kept of its questions; a perplexity is something else of them.

    What differs question by question is then not its difference, and need not even have its sign. Raises NotComparable
    where nothing is kept.
    """
    scores = [one.score for one in read_question_scores(path, metric).values()]
    return not scores or math.isclose(mean(scores), value, rel_tol=1e-6, abs_tol=1e-9)


def _answer(sample: Mapping[str, Any], metric: str) -> QuestionScore:
    cluster = None if sample.get("cluster") is None else intern(str(sample["cluster"]))
    score = {**sample.get("finer", {}), **sample["scores"]}[metric]
    return QuestionScore(intern(sample["doc_hash"]), cluster, float(score))
