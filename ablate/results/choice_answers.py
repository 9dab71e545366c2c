"""What a model answered to each question of a task: the log-probability of every choice, as an evaluation kept them."""

import gzip
import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.results.collect import CellResult
from ablate.results.paired import Floats
from ablate.results.question_scores import NotComparable

# N questions, K choices

UNKNOWN = -1
CUT = "…"
"""Ends a choice of which only the start was kept."""
HALF_UNASKED = "acc_mutual_info"
"""A metric for which lm-eval also scores every choice without its question, after those with it."""


@dataclass(frozen=True)
class ChoiceAnswers:
    """One model's, in the order of the file; of a group, task after task."""

    tasks: tuple[str, ...]
    starts: tuple[int, ...]
    """Of each task the place of its first question."""
    doc_ids: NDArray[np.int64]
    questions: str
    """Digest of the questions' ids and texts: equal of models that were asked the same."""
    group_N: NDArray[np.int64]
    """Number of each question's cluster; its own where the task knows none."""
    clusters: tuple[str, ...]
    """Their names; empty of a question's own."""
    scores: Mapping[str, Floats]
    """Metric -> N."""
    logprobs_NK: Floats
    """In nats; NaN where a question has fewer choices, K = 0 where texts were written."""
    right_N: NDArray[np.int64]
    """Number of the right choice; UNKNOWN where the file does not say it."""

    @property
    def num(self) -> int:
        return len(self.doc_ids)

    @property
    def num_choices(self) -> NDArray[np.int64]:
        """N."""
        num_N: NDArray[np.int64] = (~np.isnan(self.logprobs_NK)).sum(1)
        return num_N

    def place_in_task(self, place: int) -> tuple[str, int]:
        """-> the task of a question, and its place in that task's file."""
        at = bisect_right(self.starts, place) - 1
        return self.tasks[at], place - self.starts[at]

    def is_binary(self, metric: str) -> bool:
        """Whether every score is right or wrong."""
        return metric in self.scores and bool(np.isin(self.scores[metric], (0.0, 1.0)).all())


class QuestionInWords(NamedTuple):
    """What was asked, as far as it was kept."""

    question: str
    choices: tuple[str, ...]


def answers_of(cell: CellResult, task: str) -> ChoiceAnswers:
    """-> of a task, or of all tasks of a group. Raises NotComparable where none are kept."""
    members = cell.evaluation["tasks"].get(task, {}).get("members", ())
    return _pooled([read_answers(cell.samples(member)) for member in members or (task,)])


def _pooled(parts: Sequence[ChoiceAnswers]) -> ChoiceAnswers:
    if len(parts) == 1:
        return parts[0]
    num_choices = max(part.logprobs_NK.shape[1] for part in parts)
    wide = ((0, num_choices - part.logprobs_NK.shape[1]) for part in parts)
    padded = [
        np.pad(part.logprobs_NK, ((0, 0), more), constant_values=np.nan) for part, more in zip(parts, wide, strict=True)
    ]
    first_groups = accumulate((len(part.clusters) for part in parts), initial=0)
    names = set.intersection(*(set(part.scores) for part in parts))
    return ChoiceAnswers(
        tuple(task for part in parts for task in part.tasks),
        tuple(accumulate((part.num for part in parts[:-1]), initial=0)),
        np.concatenate([part.doc_ids for part in parts]),
        " ".join(part.questions for part in parts),
        np.concatenate([part.group_N + first for part, first in zip(parts, first_groups, strict=False)]),
        tuple(name for part in parts for name in part.clusters),
        {name: np.concatenate([part.scores[name] for part in parts]) for name in sorted(names)},
        np.concatenate(padded),
        np.concatenate([part.right_N for part in parts]),
    )


@lru_cache(maxsize=96)
def read_answers(path: Path) -> ChoiceAnswers:
    """-> of the samples of a committed evaluation, which does not change. Raises NotComparable where none are kept."""
    try:
        samples = json.loads(f"[{','.join(path.read_text().splitlines())}]")
        return _answers(path.stem, samples)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotComparable("no score is kept for each question") from error


@lru_cache(maxsize=8)
def read_questions(path: Path) -> Mapping[int, QuestionInWords]:
    """-> number of a question -> its words, from an evaluation's samples file; {} of one that did not keep them."""
    packed = path.parent.parent / "questions" / f"{path.stem}.jsonl.gz"
    try:
        with gzip.open(packed, "rt", encoding="utf-8", errors="surrogatepass") as file:
            return {
                one["doc_id"]: QuestionInWords(one["question"], tuple(one["choices"])) for one in map(json.loads, file)
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return {}


def read_record(path: Path, place: int) -> Mapping[str, Any]:
    """-> all that is kept of the question at a place in the file."""
    with path.open() as file:
        record: dict[str, Any] = json.loads(next(islice(file, place, None)))
    return record


def _answers(task: str, samples: Sequence[Mapping[str, Any]]) -> ChoiceAnswers:
    logprobs = [_logprobs(sample) for sample in samples]
    num_choices = max(map(len, logprobs), default=0)
    padded = [one + [np.nan] * (num_choices - len(one)) for one in logprobs]
    numbers: dict[str | int, int] = {}  # clusters are named by text, a question without one by its number
    names = (
        sample["doc_id"] if sample.get("cluster") is None else intern(str(sample["cluster"])) for sample in samples
    )
    digest = hashlib.sha256("".join(f"{sample['doc_id']} {sample['doc_hash']}\n" for sample in samples).encode())
    return ChoiceAnswers(
        (task,),
        (0,),
        np.array([sample["doc_id"] for sample in samples], np.int64),
        digest.hexdigest(),
        np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64),
        tuple(name if isinstance(name, str) else "" for name in numbers),
        {name: np.array([float(sample["scores"][name]) for sample in samples]) for name in samples[0]["scores"]},
        np.array(padded, float).reshape(len(samples), num_choices),
        np.array([_right(*pair) for pair in zip(samples, logprobs, strict=True)], np.int64),
    )


def _logprobs(sample: Mapping[str, Any]) -> list[float]:
    logprobs = [float(value) for value in sample.get("loglikelihoods", ())]
    return logprobs[: len(logprobs) // 2] if HALF_UNASKED in sample["scores"] else logprobs


def _right(sample: Mapping[str, Any], logprobs: Sequence[float]) -> int:
    """-> the target where it is a number, else the choice that has the right answer's log-probability."""
    target, known = sample.get("target"), sample.get("finer", {}).get("log_probability")
    if known is None:
        return UNKNOWN
    if isinstance(target, int) and 0 <= target < len(logprobs) and logprobs[target] == known:
        return target
    return logprobs.index(known) if known in logprobs else UNKNOWN
