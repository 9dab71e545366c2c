"""A task's score subject by subject: the tasks of a group such as mmlu, or the clusters of one task's questions."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ablate.results.choice_answers import read_answers
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.paired import Aligned, Contrast, contrast
from ablate.results.question_scores import NotComparable
from ablate.results.shown_pairs import Pair, shown_pairs

LEAST_QUESTIONS = 10
"""Of a subject: fewer say nothing of it."""


class Subject(NamedTuple):
    """One subject of a task, by two rows."""

    name: str
    plus: float
    """Mean over its questions and the row's seeds."""
    minus: float
    contrast: Contrast

    @property
    def interval(self) -> tuple[float, float]:
        """-> of this subject alone with 95 %; NaN where every question differs alike, which leaves no error."""
        if self.contrast.se == 0 and self.contrast.value != 0:
            return math.nan, math.nan
        return self.contrast.interval()


class TaskSubjects(NamedTuple):
    """Two rows, subject by subject."""

    pair: Pair
    metric: Metric
    subjects: tuple[Subject, ...]
    """By the difference, the largest first."""
    num_small: int
    """Subjects that are left out for their few questions."""


def subjects_of(results: Results, ablation: AblationResult) -> Iterator[TaskSubjects]:
    """-> of the pair that an ablation shows first, each task that has two subjects or more, by its first metric."""
    pair = next(shown_pairs(results, ablation), None)
    first = {metric.task: metric for metric in reversed(ablation.columns)}
    for metric in (metric for metric in ablation.columns if pair and metric is first[metric.task]):
        with suppress(NotComparable):  # the table of scores says why
            if pair and (known := _members(pair, metric) or _clusters(pair, metric)):
                large = [one for one in known if one.contrast.n >= LEAST_QUESTIONS]
                if len(large) > 1:
                    ordered = sorted(large, key=lambda one: (-one.contrast.value, one.name))
                    yield TaskSubjects(pair, metric, tuple(ordered), len(known) - len(large))


def _members(pair: Pair, metric: Metric) -> list[Subject]:
    """-> a group's tasks; none where it is a task of its own, or they have not its metric."""
    known = []
    for task in pair.plus.done[0].evaluation["tasks"].get(metric.task, {}).get("members", ()):
        with suppress(NotComparable):
            own = Metric(task, metric.name)
            known.append(_subject(task, pair.plus.aligned(pair.minus, own), pair))
    return known


def _clusters(pair: Pair, metric: Metric) -> list[Subject]:
    aligned = pair.plus.aligned(pair.minus, metric)
    names = read_answers(pair.minus.done[0].samples(metric.task)).clusters  # whose order the aligned scores have
    if not aligned.has_clusters:
        return []
    sizes = np.bincount(aligned.group_N)
    return [_subject(name, _part(aligned, number), pair) for number, name in enumerate(names) if name and sizes[number]]


def _part(aligned: Aligned, number: int) -> Aligned:
    """-> one cluster's questions, as if each stood for itself."""
    (places,) = np.nonzero(aligned.group_N == number)
    return Aligned(aligned.arm_SN[:, places], aligned.control_SN[:, places], np.arange(len(places)), False)


def _subject(name: str, aligned: Aligned, pair: Pair) -> Subject:
    difference = contrast(aligned, is_trained=(pair.plus.is_trained, pair.minus.is_trained))
    return Subject(name, float(aligned.arm_SN.mean()), float(aligned.control_SN.mean()), difference)
