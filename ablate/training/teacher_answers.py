"""A teacher's answers to the prompts of the rows, written once: in groups that a killed attempt goes on from."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.values import Json
from ablate.data import tokens
from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.store.job import Job
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.own_rows import repetition
from ablate.training.prompts import Answer, Prompt, prompt_ids
from ablate.training.teacher_cache import RowSplit
from ablate.training.token_draws import Draws
from ablate.training.vllm_writer import VllmWriter
from ablate.training.written_files import answer_of, answer_record, write_lines

CHECKPOINT_EVERY_S = 300.0
REPETITIVE = 0.5
"""An answer most of whose runs of four tokens it has before goes round in circles."""
KEPT, ANSWERS = "answers.json", "answers.jsonl"
NO_ANSWER = TokenRow([], [])


@dataclass(frozen=True, eq=False)
class TeacherAnswers:
    """Whose answers to which prompts are written."""

    writer: Writer | VllmWriter
    tokenizer: Any
    rows: TokenRows
    """Those of the data."""
    chosen: Sequence[int]
    """Which of the rows that will be made are read: each of the data's makes `num_answers`."""
    num_answers: int

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """Of the chosen rows; a row that the data has no answer to, or lost it to max_length, is asked nothing."""
        places = (divmod(place, self.num_answers) for place in self.chosen)
        return tuple(Prompt(row, n, prompt_ids(self.rows, row)) for row, n in places if self.rows.num_loss[row])

    @property
    def num_rows(self) -> int:
        return len(self.rows) * self.num_answers

    def rows_with(self, answers: Sequence[Answer]) -> TokenRows:
        """-> the rows with these answers; those that nobody reads are empty."""
        by_place = {self._place(answer.prompt): answer for answer in answers}
        answered = (by_place.get(place) for place in range(self.num_rows))
        return lay(answer.token_row if answer else NO_ANSWER for answer in answered)

    def _place(self, prompt: Prompt) -> int:
        return prompt.row * self.num_answers + prompt.number

    def line(self, answer: Answer) -> dict[str, Json]:
        """-> what a person reads of an answer."""
        return {
            "step": 0,
            **answer.readable(self.tokenizer.decode),
            "teacher_logprob": answer.logprob,
            "student_logprob": None,
            "writer": "teacher",
        }


def write(job: Job, asked: TeacherAnswers, splits: Mapping[RowSplit, TokenRows], summary: dict[str, Any]) -> None:
    """Writes what a `generate` stage leaves to `job.out`, going on from the latest checkpoint.

    `summary`: of the data's rows. Raises StageError for a row without a prompt, Interrupted when asked to stop (a
    checkpoint saved).
    """
    answers = sorted(_written(job, asked), key=lambda answer: answer.prompt[:2])
    if not job.is_first:
        return
    train = asked.rows_with(answers)
    tokens.save(train, job.out / "train.safetensors")
    tokens.save(splits["holdout"], job.out / "holdout.safetensors")
    write_lines(job.out / ANSWERS, map(asked.line, answers))
    counts = counted(asked, answers)
    notes = list(words(counts, job.settings.sampling.max_new_tokens))
    disk.write_json(job.out / "summary.json", _summary(summary, train, splits["holdout"], counts, notes))
    job.notes["rows"] = [*notes]


def _written(job: Job, asked: TeacherAnswers) -> list[Answer]:
    """-> every answer, those that earlier attempts left first."""
    sampling, draws = job.settings.sampling, Draws(job.settings.seed, 0)
    answers, saved_at = list(_restored(job, asked)), time.monotonic()
    total = len(asked.prompts)
    done = {answer.prompt for answer in answers}

    def after_group(group: Sequence[Answer]) -> None:
        nonlocal saved_at
        answers.extend(group)
        job.progress(len(answers), total, "answer", tokens=sum(len(answer.ids) for answer in group))
        if len(answers) < total and (job.is_stopping() or time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            _save(job, answers)
            saved_at = time.monotonic()
            job.stop_if_asked()

    def on_halved(num: int) -> None:
        job.notes["out of memory"] = (
            f"answers were written {num} at a time: in rounding, and where that moves a token, they may be others than"
            " with more memory"
        )

    missing = [prompt for prompt in asked.prompts if prompt not in done]
    job.progress(len(answers), total, "answer")
    if isinstance(asked.writer, VllmWriter):
        asked.writer.write(missing, sampling, draws.seed, after_group)
    else:
        write_answers(asked.writer, missing, sampling, draws, after_group, on_halved, is_scored=True)
    return answers


def _save(job: Job, answers: Sequence[Answer]) -> None:
    def write_state(folder: Path) -> None:
        disk.write(folder / KEPT, json.dumps([answer_record(answer) for answer in answers]))

    job.checkpoints.save(len(answers), write_state)


def _restored(job: Job, asked: TeacherAnswers) -> Iterator[Answer]:
    latest = job.checkpoints.latest()
    for record in json.loads((latest[1] / KEPT).read_text()) if latest else ():
        yield answer_of(record, asked.rows)


def counted(asked: TeacherAnswers, answers: Sequence[Answer]) -> dict[str, int]:
    """-> how many answers there are, and how many of them are odd."""
    return {
        "written": len(answers),
        "cut": sum(not answer.ended for answer in answers),
        "empty": sum(answer.ended and len(answer.ids) == 1 for answer in answers),
        "repetitive": sum(repetition(answer.ids) > REPETITIVE for answer in answers),
        "tokens": sum(len(answer.ids) for answer in answers),
        "unanswered": len(asked.chosen) - len(answers),
    }


def words(counts: Mapping[str, int], most: int) -> Iterator[str]:
    """-> what a reader should know of the answers; `most`: tokens of one."""
    num = counts["written"]
    yield f"{num:,} answers written by the teacher, {counts['tokens'] / max(1, num):.1f} tokens each on the mean"
    if counts["cut"]:
        yield f"{counts['cut']:,} of them had not ended with {most:,} tokens (max_new_tokens): they are cut there"
    if counts["empty"]:
        yield f"{counts['empty']:,} of them are empty: they end with their first token"
    if counts["repetitive"]:
        yield f"{counts['repetitive']:,} of them repeat themselves: most of their runs of four tokens come twice"
    if counts["unanswered"]:
        why = "the data have no answer there, or lost it to max_length"
        yield f"{counts['unanswered']:,} were not asked for: {why}"


def _summary(
    data: dict[str, Any], train: TokenRows, holdout: TokenRows, counts: dict[str, int], notes: list[str]
) -> dict[str, Any]:
    if not train.counts.loss_tokens:
        raise StageError("the teacher wrote no answer: no row has a prompt with an answer to it")
    changed = {
        "train": train.counts._asdict(),
        "longest": int(max(train.lengths.max(initial=0), holdout.lengths.max(initial=0))),
        "content": tokens.content([train, holdout], int(data["vocabulary"])),
        "answers": counts,
        "notes": notes,
    }
    return data | changed
