"""What models wrote to generation tasks: how long their texts are, and how many were cut before they ended."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ablate.results.collect import AblationResult, RowResult
from ablate.results.question_scores import mean


class TaskTexts(NamedTuple):
    """Of one row and one task, over the seeds that are done."""

    task: str
    row: RowResult
    seeds: int
    num: int
    """Texts; several of a question that was tried several times."""
    num_tokens: float
    """Mean of a text's."""
    num_cut: int
    """Texts that had not ended at the task's most tokens."""

    @property
    def ended(self) -> float:
        """The share of the others."""
        return 1 - self.num_cut / self.num


def task_texts(ablation: AblationResult) -> Iterator[TaskTexts]:
    """-> each generation task's texts, row by row, of evaluations that kept them."""
    for task in dict.fromkeys(metric.task for metric in ablation.metrics):
        for row in ablation.rows:
            by_seed = [texts for cell in row.done if (texts := _texts(cell.samples(task)))]
            if by_seed:
                yield _summed(task, row, by_seed)


def _summed(task: str, row: RowResult, by_seed: Sequence[Sequence[dict[str, Any]]]) -> TaskTexts:
    texts = list(chain(*by_seed))
    num_cut = sum(not text["has_ended"] for text in texts)
    return TaskTexts(task, row, len(by_seed), len(texts), mean([text["num_tokens"] for text in texts]), num_cut)


def _texts(path: Path) -> list[dict[str, Any]]:
    """-> every text of a file of samples; of a task that asks for none, or of before they were kept, [] at once."""
    try:
        with path.open() as file:
            first = json.loads(file.readline())
            if "written" not in first:
                return []
            return [text for sample in (first, *map(json.loads, file)) for text in sample["written"]]
    except (OSError, ValueError, KeyError):
        return []
