"""What guessing would score on a task, from how many choices its questions have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.results.choice_answers import HALF_UNASKED
from ablate.results.collect import CellResult, Metric, Results
from ablate.results.question_scores import mean

OF_ONE_CHOICE = ("acc", "acc_norm", "acc_bytes")
"""lm-eval's metrics that are 1 where the likeliest choice is the right one."""


def chance_level(results: Results, cell: CellResult, metric: Metric) -> float | None:
    """-> the mean over questions of 1 / number of choices; None of a task without choices, or of another metric.

    `cell`: one that is done. The number of choices is that of the log-likelihoods kept of a question; all cells that
    answered the same questions have the same.
    """
    task = cell.evaluation.get("tasks", {}).get(metric.task)
    if task is None or metric.name not in OF_ONE_CHOICE:
        return None
    name = f"chance/{metric}/{task.get('questions') or cell.samples(metric.task)}"
    if name not in results.memo:
        times_asked = 2 if HALF_UNASKED in task["metrics"] else 1
        results.memo[name] = _mean_share(cell.samples(metric.task), metric.name, times_asked)
    level: float | None = results.memo[name]
    return level


def _mean_share(path: Path, metric: str, times_asked: int) -> float | None:
    try:
        with path.open() as file:
            shares = [_of_question(json.loads(line), metric, times_asked) for line in file]
    except (OSError, ValueError, KeyError):
        return None
    known = [share for share in shares if share is not None]
    return mean(known) if known and len(known) == len(shares) else None


def _of_question(sample: Mapping[str, Any], metric: str, times_asked: int) -> float | None:
    num = len(sample.get("loglikelihoods", ())) // times_asked
    return 1 / num if num > 1 and sample["scores"][metric] in (0, 1) else None
