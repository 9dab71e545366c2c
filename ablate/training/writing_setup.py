"""A student that writes: what it needs before its training, and what it answers once trained."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from ablate.core.errors import StageError
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.study.answer_settings import Sampling
from ablate.training import asked_teachers, written_files
from ablate.training.decode_loop import Writer, require_room, write_answers
from ablate.training.model_parts import ModelParts
from ablate.training.on_policy import NUM_SAMPLED_PROMPTS, Writing
from ablate.training.prompts import Prompt, end_tokens, prompt_ids
from ablate.training.ranks import ONE, Ranks
from ablate.training.teacher_cache import RowSplit
from ablate.training.token_draws import Draws
from ablate.training.training import Training

FINAL_SAMPLES = "final_samples.jsonl"


def writing_of(training: Training, tokenizer: Any, ranks: Ranks = ONE) -> Writing:
    """-> how a training's student writes; `tokenizer`: the student's."""
    recipe: Any = training.recipe
    beside = training.teacher if recipe.answers == "mixed" else None
    teacher = beside if isinstance(beside, ModelParts) else None
    models = [parts.model for parts in (training.student, teacher) if parts]
    ends = end_tokens(training.rows, tokenizer, models)
    writer = Writer(training.student, ends, teacher, ranks)
    return Writing(recipe, training.seed, training.num_steps, writer, tokenizer.decode)


def with_writing(training: Training, writing: Writing, holdout: TokenRows) -> Training:
    """-> the training whose student writes in it.

    Raises StageError, before anything is trained, where a prompt or its answer is too long for a model, or empty.
    """
    rows = training.rows
    asked = sorted(np.flatnonzero(rows.num_loss).tolist(), key=lambda row: len(prompt_ids(rows, row)))
    shortest_and_longest = [Prompt(row, 0, prompt_ids(rows, row)) for row in (*asked[:1], *asked[-1:])]
    for parts in (training.student, *asked_teachers.live(training.teacher)):
        require_room(Writer(parts, frozenset()), shortest_and_longest, writing.recipe.sampling)
    return replace(training, writing=writing, holdout=holdout)


def write_final_samples(job: Job, writing: Writing, splits: Mapping[RowSplit, TokenRows]) -> None:
    """The trained student's likeliest answers to the first prompts that are held out, or else trained on.

    Those that leave no room for an answer are passed over.
    """
    split: RowSplit = "holdout" if splits["holdout"].counts.loss_tokens else "train"
    rows, student = splits[split], replace(writing.writer, teacher=None)
    greedy = Sampling(temperature=0, max_new_tokens=writing.recipe.sampling.max_new_tokens)
    prompts = (Prompt(row, 0, prompt_ids(rows, row)) for row in np.flatnonzero(rows.num_loss).tolist())
    asked = [*islice((prompt for prompt in prompts if _has_room(student, prompt, greedy)), NUM_SAMPLED_PROMPTS)]
    answers = write_answers(student, asked, greedy, Draws(writing.seed, 0), is_scored=True)
    samples = (
        {"split": split, **answer.readable(writing.text), "student_logprob": answer.logprob} for answer in answers
    )
    if job.is_first:
        written_files.write_lines(job.out / FINAL_SAMPLES, samples)


def _has_room(writer: Writer, prompt: Prompt, sampling: Sampling) -> bool:
    try:
        require_room(writer, [prompt], sampling)
    except StageError:
        return False
    return True
