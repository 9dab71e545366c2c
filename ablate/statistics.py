"""What the evidence carries: paired differences of two models on the same questions, with their standard errors."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

NAN = math.nan


class Answer(NamedTuple):
    """One model's score on one question."""

    doc_hash: str
    """Of the question, so that equal ids of different questions are never paired."""
    cluster: str | None
    """What questions share (a source, a concept), where the task says; None: it shares nothing with any other."""
    score: float


Answers = Mapping[int, Answer]


class Difference(NamedTuple):
    """Mean of the paired differences d_i = arm_i - control_i."""

    value: float
    se: float
    """Question noise only: nothing in it tells how another seed would have come out. NaN where it is not defined."""
    n: int
    clusters: int | None
    """Number of clusters that the error allows for; None where the questions count as independent."""


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
        if one.get(name) != other.get(name):
            raise NotComparable(f"other {name.replace('_', ' ')}")
    for name, told in (("version", "other task version"), ("prompts", "other prompts")):
        if one["tasks"].get(task, {}).get(name) != other["tasks"].get(task, {}).get(name):
            raise NotComparable(told)


def paired(arm: Answers, control: Answers) -> Difference:
    """-> mean(d) and its standard error.

    Independent questions: SE = sd(d, ddof=1) / sqrt(n)  (Miller 2024, 2411.00640, section 4).
    Clusters: SE^2 = G/(G-1) sum_g (sum_{i in g} (d_i - mean))^2 / n^2  (Cameron, Gelbach, Miller 2011).
    Raises NotComparable unless both answered the same questions.
    """
    if arm.keys() != control.keys():
        raise NotComparable("other questions")
    if any(arm[question].doc_hash != control[question].doc_hash for question in arm):
        raise NotComparable("the questions have another text")
    differences = [arm[question].score - control[question].score for question in arm]
    if all(answer.cluster is None for answer in arm.values()):
        return Difference(mean(differences), _se(differences), len(differences), None)
    groups = [_group(question, arm[question]) for question in arm]
    return Difference(mean(differences), _clustered_se(differences, groups), len(differences), len(set(groups)))


def averaged(seeds: Sequence[Answers]) -> Answers:
    """-> each question's score averaged over seeds. Raises NotComparable when a seed answered other questions."""
    first = seeds[0]
    if len(seeds) == 1:
        return first
    if any(other.keys() != first.keys() for other in seeds):
        raise NotComparable("other questions in another seed")
    return {
        question: answer._replace(score=mean([seed[question].score for seed in seeds]))
        for question, answer in first.items()
    }


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
def read_answers(path: Path, metric: str) -> Answers:
    """-> a model's score on every question, from the samples of a committed evaluation. Raises NotComparable for none.

    Cached, for one evaluation is in many comparisons; what is committed does not change.
    """
    try:
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        return {sample["doc_id"]: _answer(sample, metric) for sample in samples}
    except (OSError, ValueError, KeyError) as error:
        raise NotComparable("no score is kept for each question") from error


def _answer(sample: Mapping[str, Any], metric: str) -> Answer:
    cluster = None if sample.get("cluster") is None else intern(str(sample["cluster"]))
    score = {**sample.get("finer", {}), **sample["scores"]}[metric]
    return Answer(intern(sample["doc_hash"]), cluster, float(score))


def _se(differences: Sequence[float]) -> float:
    return sd(differences) / math.sqrt(len(differences)) if differences else NAN


def _group(question: int, answer: Answer) -> str | int:
    """A question without a cluster is one of its own."""
    return question if answer.cluster is None else answer.cluster


def _clustered_se(differences: Sequence[float], groups: Iterable[str | int]) -> float:
    center = mean(differences)
    sums: dict[str | int, list[float]] = defaultdict(list)
    for difference, group in zip(differences, groups, strict=True):
        sums[group].append(difference - center)
    if len(sums) < 2:
        return NAN
    between = math.fsum(math.fsum(members) ** 2 for members in sums.values())
    return math.sqrt(len(sums) / (len(sums) - 1) * between) / len(differences)
