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
            parts = (_members(pair, metric) or _clusters(pair, metric)) if pair else {}
            large = {name: aligned for name, aligned in parts.items() if len(aligned.group_N) >= LEAST_QUESTIONS}
            if pair and len(large) > 1:
                known = (_subject(name, aligned, pair) for name, aligned in large.items())
                ordered = sorted(known, key=lambda one: (-one.contrast.value, one.name))
                yield TaskSubjects(pair, metric, tuple(ordered), len(parts) - len(large))


def _members(pair: Pair, metric: Metric) -> dict[str, Aligned]:
    """-> a group's tasks; none where it is a task of its own, or they have not its metric."""
    known = {}
    for task in pair.plus.done[0].evaluation["tasks"].get(metric.task, {}).get("members", ()):
        with suppress(NotComparable):
            known[task] = pair.plus.aligned(pair.minus, Metric(task, metric.name))
    return known


def _clusters(pair: Pair, metric: Metric) -> dict[str, Aligned]:
    """-> a task's clusters, their questions as if each stood for itself."""
    aligned = pair.plus.aligned(pair.minus, metric)
    if not aligned.has_clusters:
        return {}
    names = read_answers(pair.minus.done[0].samples(metric.task)).clusters  # whose order the aligned scores have
    ends = np.cumsum(np.bincount(aligned.group_N))[:-1]
    places_G = np.split(np.argsort(aligned.group_N, kind="stable"), ends)
    return {
        name: Aligned(aligned.arm_SN[:, places], aligned.control_SN[:, places], np.arange(len(places)), False)
        for name, places in zip(names, places_G, strict=True)
        if name
    }


def _subject(name: str, aligned: Aligned, pair: Pair) -> Subject:
    difference = contrast(aligned, is_trained=(pair.plus.is_trained, pair.minus.is_trained))
    return Subject(name, float(aligned.arm_SN.mean()), float(aligned.control_SN.mean()), difference)
