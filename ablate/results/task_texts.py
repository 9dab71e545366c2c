"""What models wrote to generation tasks: how long their texts are, how many were cut, and those to some questions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ablate.results.collect import AblationResult, CellResult, RowResult
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


class QuestionText(NamedTuple):
    """What one row wrote to a question, and what it got for it."""

    row: RowResult
    cell: CellResult
    """Its first seed that is done."""
    text: str
    num_tokens: int
    has_ended: bool
    scores: Mapping[str, float]


class AskedQuestion(NamedTuple):
    """A question of a generation task, and each row's text."""

    task: str
    asked: str
    """The end of its prompt."""
    target: str
    """The answer that the task names."""
    texts: tuple[QuestionText, ...]


def asked_questions(ablation: AblationResult, most: int) -> Iterator[AskedQuestion]:
    """-> the first questions of each generation task, with the text of every row that kept its own."""
    for task in dict.fromkeys(metric.task for metric in ablation.metrics):
        asked: dict[str, list[tuple[dict[str, Any], QuestionText]]] = {}
        for row in ablation.rows:
            for record in _first_records(row, task, most):
                first = record["written"][0]
                text = QuestionText(row, row.done[0], **first, scores=record["scores"])
                asked.setdefault(str(record["doc_hash"]), []).append((record, text))
        for texts in islice(asked.values(), most):
            record = texts[0][0]
            yield AskedQuestion(task, record["asked"], str(record["target"]), tuple(text for _, text in texts))


def _first_records(row: RowResult, task: str, most: int) -> list[dict[str, Any]]:
    """-> the first questions as the row was asked them; none where no text was kept, or not what was asked."""
    if not row.done:
        return []
    try:
        with row.done[0].samples(task).open() as file:
            records = [json.loads(line) for line in islice(file, most)]
    except (OSError, ValueError):
        return []
    return [record for record in records if record.get("written") and "asked" in record]


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
