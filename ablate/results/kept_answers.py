"""Answers that models wrote and that were kept: on the way of a training, at its end, and by a teacher beforehand."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ablate.core.values import Frozen
from ablate.results.collect import AblationResult, CellResult, RowResult
from ablate.store.job import read_metrics
from ablate.store.manifest import sound
from ablate.store.stage import Stage
from ablate.store.store import Store

ON_THE_WAY, AT_THE_END, BEFOREHAND = "out/samples.jsonl", "out/final_samples.jsonl", "out/answers.jsonl"
"""Of a training, of a training, and of a `generate` stage."""


class WrittenAnswer(Frozen, extra="ignore", allow_inf_nan=True):
    """One line of those files, whatever else stands in it."""

    step: int = 0
    """Optimizer step whose answer it was; 0 of one that was written before the training, or after it."""
    row: int
    """Number of the row of the data."""
    split: str = "train"
    """Part of the data that the row is of: train, holdout."""
    prompt: str
    answer: str
    num_tokens: int
    ended: bool
    """By itself; else it was cut."""
    teacher_logprob: float | None = None
    """Mean over its tokens, in nats."""
    student_logprob: float | None = None
    writer: str = "student"


class RowAnswer(NamedTuple):
    """What one row's student answered."""

    row: RowResult
    cell: CellResult
    """Its first seed that kept answers."""
    answer: WrittenAnswer


class AskedPrompt(NamedTuple):
    """One prompt, and each row's answer to it."""

    prompt: str
    number: int
    """Of the row of the data."""
    answers: tuple[RowAnswer, ...]


class Course(NamedTuple):
    """How a row's answers changed over its training: at the first, the middle and the last step that kept any."""

    row: RowResult
    cell: CellResult
    answers: tuple[WrittenAnswer, ...]


class TeachersAnswers(NamedTuple):
    """What a teacher wrote before the trainings began that learn from it."""

    rows: tuple[RowResult, ...]
    answers: tuple[WrittenAnswer, ...]


def side_by_side(store: Store, ablation: AblationResult, most: int) -> list[AskedPrompt]:
    """-> the prompts that most rows answered once they were trained, in the order in which they were asked."""
    answers_by_prompt: dict[str, list[RowAnswer]] = {}
    for row, cell, answers in _first_kept(store, ablation, AT_THE_END):
        first: dict[str, WrittenAnswer] = {}
        for answer in answers:
            first.setdefault(answer.prompt, answer)
        for prompt, answer in first.items():
            answers_by_prompt.setdefault(prompt, []).append(RowAnswer(row, cell, answer))
    asked = [
        AskedPrompt(prompt, answers[0].answer.row, tuple(answers)) for prompt, answers in answers_by_prompt.items()
    ]
    kept = sorted(asked, key=lambda one: -len(one.answers))[:most]
    return sorted(kept, key=lambda one: one.number)


def courses(store: Store, ablation: AblationResult) -> list[Course]:
    """-> one of every row whose training kept answers on its way."""
    return [Course(row, cell, _course(answers)) for row, cell, answers in _first_kept(store, ablation, ON_THE_WAY)]


def teachers_answers(store: Store, ablation: AblationResult, most: int) -> list[TeachersAnswers]:
    """-> the first answers that were written beforehand, once for all the rows that learn from them."""
    rows_by_stage: dict[str, tuple[Stage, list[RowResult]]] = {}
    for row in _distilled(ablation):
        for stage in _written_beforehand(row):
            rows_by_stage.setdefault(stage.key, (stage, []))[1].append(row)
    known = ((tuple(rows), _read(store, stage, BEFOREHAND, most)) for stage, rows in rows_by_stage.values())
    return [TeachersAnswers(rows, answers) for rows, answers in known if answers]


def _written_beforehand(row: RowResult) -> list[Stage]:
    trained = row.cells[0].cell.trained
    return [stage for stage in trained.walk() if stage.kind == "generate"] if trained else []


def _first_kept(
    store: Store, ablation: AblationResult, name: str
) -> Iterator[tuple[RowResult, CellResult, Sequence[WrittenAnswer]]]:
    """-> row, seed and answers of each distilled row that kept any, of its first seed that did."""
    for row in _distilled(ablation):
        known = ((cell, _read(store, cell.cell.trained, name)) for cell in row.cells if cell.cell.trained)
        for cell, answers in known:
            if answers:
                yield row, cell, answers
                break


def _distilled(ablation: AblationResult) -> Iterable[RowResult]:
    return (row for row in ablation.rows if row.row.model == "distill")


def _course(answers: Sequence[WrittenAnswer]) -> tuple[WrittenAnswer, ...]:
    """-> answers to the prompt that was kept at the most steps; to others, where none was kept twice."""
    steps_by_row: dict[int, dict[int, WrittenAnswer]] = {}
    by_step: dict[int, WrittenAnswer] = {}
    for answer in answers:
        steps_by_row.setdefault(answer.row, {}).setdefault(answer.step, answer)
        by_step.setdefault(answer.step, answer)
    longest = max(steps_by_row.values(), key=len)
    kept = longest if len(longest) > 1 else by_step
    steps = sorted(kept)
    shown = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1]))
    return tuple(kept[step] for step in shown)


def _read(store: Store, stage: Stage | None, name: str, most: int | None = None) -> tuple[WrittenAnswer, ...]:
    """-> the first answers of a committed file; none where it is not there, or not what was committed."""
    path = sound(store.folder(stage), name) if stage else None
    return tuple(islice(_answers(path), most)) if path else ()


def _answers(path: Path) -> Iterator[WrittenAnswer]:
    """-> but for lines without its fields, as another version of this package may have written them."""
    for record in read_metrics(path):
        with suppress(ValidationError):
            yield WrittenAnswer.model_validate(record)
