"""Scores over questions and seeds, and what of them may be compared."""

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ablate.results.asking_text import condition

T = TypeVar("T")
NAN = math.nan


class QuestionScores(NamedTuple):
    """One model's score on every question of a task, by one metric, in the order of the file."""

    ids: tuple[int, ...]
    hashes: tuple[str, ...]
    """Of the questions, so that equal ids of different questions are never paired."""
    clusters: tuple[str | None, ...]
    """What questions share (a source, a concept), where the task says; None: it shares nothing with any other."""
    scores: Sequence[float]

    def in_order_of(self, other: "QuestionScores") -> "QuestionScores":
        """-> the same in another's order. Raises NotComparable unless they are of the same questions."""
        if self.ids == other.ids:
            return self
        places = {question: place for place, question in enumerate(self.ids)}
        if places.keys() != set(other.ids):
            raise NotComparable("other questions")
        order = [places[question] for question in other.ids]
        hashes = tuple(self.hashes[place] for place in order)
        clusters = tuple(self.clusters[place] for place in order)
        scores = array("d", [self.scores[place] for place in order])
        return QuestionScores(other.ids, hashes, clusters, scores)


class KeptScores(NamedTuple):
    """A file of samples, a column each."""

    ids: tuple[int, ...]
    hashes: tuple[str, ...]
    clusters: tuple[str | None, ...]
    by_metric: Mapping[str, Sequence[float]]
    """Of the metrics that every question has."""


_known: dict[Path, KeptScores | None] = {}


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
    """-> a model's scores, from the samples of a committed evaluation. Raises NotComparable where there are none."""
    kept = _kept(path)
    if kept is None or metric not in kept.by_metric:
        raise NotComparable("no score is kept for each question")
    return QuestionScores(kept.ids, kept.hashes, kept.clusters, kept.by_metric[metric])


@cache
def is_mean(path: Path, metric: str, value: float) -> bool:
    """Whether a score is the mean of what is kept of its questions; a perplexity is something else of them.

    What differs question by question is then not its difference, and need not even have its sign. Raises NotComparable
    where nothing is kept.
    """
    scores = read_question_scores(path, metric).scores
    return not scores or math.isclose(mean(scores), value, rel_tol=1e-6, abs_tol=1e-9)


def _kept(path: Path) -> KeptScores | None:
    """-> every column at once: one evaluation is in many comparisons by many metrics, and what is committed stays."""
    if path not in _known:
        _known[path] = read_kept_scores(path)
    return _known[path]


def remember(kept: Mapping[Path, KeptScores | None]) -> None:
    """Takes files over that another process has read."""
    for path, columns in kept.items():
        _known[path] = columns and columns._replace(
            ids=_once(columns.ids), hashes=_once(columns.hashes), clusters=_once(columns.clusters)
        )


def read_kept_scores(path: Path) -> KeptScores | None:
    """-> None where no scores are kept, or not in this form. Of a question that is kept twice, the last counts."""
    ids: dict[int, int] = {}
    questions: list[tuple[str, str | None]] = []
    scores: list[dict[str, Any]] = []
    try:
        with path.open() as file:
            for line in file:
                sample = json.loads(line)
                cluster = sample.get("cluster")
                place = ids.setdefault(sample["doc_id"], len(ids))
                questions[place : place + 1] = [(str(sample["doc_hash"]), None if cluster is None else str(cluster))]
                scores[place : place + 1] = [{**sample.get("finer", {}), **sample["scores"]}]
        return _columns(ids, questions, scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _columns(
    ids: Iterable[int], questions: Sequence[tuple[str, str | None]], scores: Sequence[Mapping[str, Any]]
) -> KeptScores:
    names = scores[0].keys() if scores else ()
    whole = [name for name in names if all(name in one for one in scores)]
    return KeptScores(
        _once(tuple(ids)),
        _once(tuple(hashed for hashed, _ in questions)),
        _once(tuple(cluster for _, cluster in questions)),
        {name: array("d", [float(one[name]) for one in scores]) for name in whole},
    )


@lru_cache(maxsize=256)
def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    """-> the same, the very one that was first seen: all models are asked the same questions."""
    return values
