"""What models wrote to generation tasks: how long their texts are, how many were cut, and those to some questions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ablate.results.collect import AblationResult, CellResult, RowResult
from ablate.results.question_scores import mean

RUN = 4
"""Words."""
NOTHING = ("", "[invalid]")
"""What lm-eval's filters put where they find no answer."""


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
    median_tokens: float
    num_characters: float
    """Mean of a text's."""
    num_empty: int
    """Texts of nothing but white space."""
    repetition: float
    """Mean over texts of the share of their runs of four words that they had before."""
    extracted: Mapping[str, float]
    """Filter of the task -> the share of questions in whose text it found an answer; of evaluations that kept it."""

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
            by_seed = [records for cell in row.done if (records := _records(cell.samples(task)))]
            if by_seed:
                yield _summed(task, row, by_seed)


def _summed(task: str, row: RowResult, by_seed: Sequence[Sequence[dict[str, Any]]]) -> TaskTexts:
    texts = [text for record in chain(*by_seed) for text in record["written"]]
    lengths = [text["num_tokens"] for text in texts]
    return TaskTexts(
        task=task,
        row=row,
        seeds=len(by_seed),
        num=len(texts),
        num_tokens=mean(lengths),
        num_cut=sum(not text["has_ended"] for text in texts),
        median_tokens=median(lengths),
        num_characters=mean([len(text["text"]) for text in texts]),
        num_empty=sum(not text["text"].strip() for text in texts),
        repetition=mean([repetition(text["text"]) for text in texts]),
        extracted=_extracted(list(chain(*by_seed))),
    )


def repetition(text: str) -> float:
    """-> of the runs of four words of a text, the share that stood in it before; 0 of fewer words."""
    words = text.split()
    runs = list(zip(*(words[start:] for start in range(RUN)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _extracted(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    by_filter: dict[str, list[bool]] = {}
    for record in records:
        for name, text in record.get("extracted", {}).items():
            by_filter.setdefault(name, []).append(text.strip() not in NOTHING)
    return {name: mean(is_answered) for name, is_answered in by_filter.items()}


def _records(path: Path) -> list[dict[str, Any]]:
    """-> a file of samples; of a task that asks for no text, or of before they were kept, [] at once."""
    try:
        with path.open() as file:
            first = json.loads(file.readline())
            return [first, *map(json.loads, file)] if first["written"] else []
    except (OSError, ValueError, KeyError):
        return []
