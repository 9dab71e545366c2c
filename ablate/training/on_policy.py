"""A student's own answers in its training: written at each step, by the student as it is then."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ablate.core.values import Json
from ablate.study.training_recipes import Distill
from ablate.training.batches import StepRows
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.own_rows import own_rows, repetition, with_answers
from ablate.training.own_tokens import OwnSums
from ablate.training.prompts import Answer, Prompt, prompt_ids
from ablate.training.replay import ReplayBuffer, next_share
from ablate.training.token_draws import Draws

NUM_SAMPLED_STEPS = 8
"""Evenly spread, the first and the last among them."""
NUM_SAMPLED_PROMPTS = 4
"""Of a step."""


@dataclass(frozen=True)
class Writing:
    """How a student writes in its training."""

    recipe: Distill
    seed: int
    num_steps: int
    writer: Writer
    text: Callable[[Sequence[int]], str]
    """Of tokens."""

    @cached_property
    def sampled_steps(self) -> frozenset[int]:
        """Those of which samples are kept."""
        last, gaps = self.num_steps - 1, NUM_SAMPLED_STEPS - 1
        return frozenset(1 + round(number * last / gaps) for number in range(NUM_SAMPLED_STEPS))


class OwnStep(NamedTuple):
    """A step with the student's answers in it."""

    rows: StepRows
    answers: Sequence[Answer] = ()
    """Trained on, in the order of the step's own rows."""
    num_new: int = 0
    """How many of them, the first ones, were written for this step."""
    num_tokens: int = 0
    """Written by this process, which may have taken over some of the answers."""
    seconds: float = 0.0
    """That took."""

    @property
    def new(self) -> Sequence[Answer]:
        return self.answers[: self.num_new]


@dataclass
class Written:
    """What a training's student has written, as far as the training still needs it."""

    writing: Writing
    share: float
    """Of a step's rows that the student writes."""
    replay: ReplayBuffer | None = None
    looked: float | None = None
    """The held-out loss at the last look, where the share adapts to it."""
    answers: list[Answer] = field(default_factory=list)
    """Of the step under way, as far as they are written."""
    samples: list[dict[str, Json]] = field(default_factory=list)
    num_written: int = 0
    num_cut: int = 0
    """Answers that had not ended with `max_new_tokens` tokens."""

    @classmethod
    def nothing(cls, writing: Writing) -> "Written":
        """-> before the first step."""
        replay = writing.recipe.replay
        return cls(writing, writing.recipe.student_fraction, ReplayBuffer(replay) if replay else None)

    def step(
        self, rows: StepRows, after_group: Callable[[], None], on_halved: Callable[[int], None] = lambda num: None
    ) -> OwnStep:
        """-> the step with the student's answers, those not yet there written now.

        `after_group` is called whenever some more are there: it may save them, and raise to end the work. `on_halved`
        hears, out of memory, how many are written together from there on.
        """
        draw = f"{self.writing.seed}/{rows.step}"
        own = own_rows(rows, self.share, self.writing.seed)
        if not own:
            return OwnStep(rows)
        num_answers = self.writing.recipe.sampling.num_answers
        num_new = self.replay.num_new(len(own), num_answers, draw) if self.replay else len(own)
        reused = self.replay.drawn((len(own) - num_new) * num_answers, draw) if self.replay else []
        num_before, began = len(self.answers), time.monotonic()
        self._write(rows, own[:num_new], after_group, on_halved)
        seconds, num_tokens = time.monotonic() - began, sum(len(answer.ids) for answer in self.answers[num_before:])
        answers = [*self._in_order(own), *reused]
        return OwnStep(with_answers(rows, own, answers), answers, len(self.answers), num_tokens, seconds)

    def _write(
        self, rows: StepRows, own: Sequence[int], after_group: Callable[[], None], on_halved: Callable[[int], None]
    ) -> None:
        """Writes what is missing of the step's answers."""
        writing = self.writing
        sampling = writing.recipe.sampling
        numbers = range(sampling.num_answers)
        prompts = [Prompt(row, number, prompt_ids(rows.rows, row)) for row in own for number in numbers]
        there = {answer.prompt for answer in self.answers}

        def keep(answers: Sequence[Answer]) -> None:
            self.answers.extend(answers)
            after_group()

        missing = [prompt for prompt in prompts if prompt not in there]
        if missing:
            write_answers(writing.writer, missing, sampling, Draws(writing.seed, rows.step), keep, on_halved)

    def _in_order(self, own: Sequence[int]) -> list[Answer]:
        """-> the step's answers in the order of its rows, whatever groups they were written in."""
        return sorted(self.answers, key=lambda answer: (own.index(answer.prompt.row), answer.prompt.number))

    def finish(self, step: OwnStep, sums: OwnSums) -> dict[str, Any]:
        """The step is done. -> what it is recorded with."""
        if step.rows.step in self.writing.sampled_steps:
            self._sample(step, sums)
        new, self.answers = step.new, []
        self.num_written += len(new)
        self.num_cut += sum(not answer.ended for answer in new)
        if self.replay:
            self.replay.keep(new)
        return {
            "written": len(new),
            "answer_length": _mean([len(answer.ids) for answer in new]),
            "ended": _mean([answer.ended for answer in new]),
            "repetition": _mean([repetition(answer.ids) for answer in new]),
            "student_entropy": sums.entropy / sums.num_tokens if sums.num_tokens else None,
            "own_reverse_kl": sums.reverse_kl / sums.num_tokens if sums.num_tokens else None,
            "written_tokens_s": step.num_tokens / step.seconds if step.num_tokens else None,
            "student_share": self.share,
        }

    def look_if_due(self, step: int, held_out_loss: Callable[[], float]) -> None:
        """Lets the share rise after optimizer step `step` (0: before the first), where it adapts."""
        replay = self.writing.recipe.replay
        adaptive = replay.adaptive if replay else None
        if adaptive is None or step % adaptive.every or step >= self.writing.num_steps:
            return
        loss = held_out_loss()
        if self.looked is not None:
            self.share = next_share(self.share, loss, self.looked, adaptive)
        self.looked = loss

    def _sample(self, step: OwnStep, sums: OwnSums) -> None:
        """Keeps the first answers that were written for a step, one a prompt."""
        first = min(step.rows.own, default=0)
        numbered = [(first + number, answer) for number, answer in enumerate(step.new) if answer.prompt.number == 0]
        for row, answer in numbered[:NUM_SAMPLED_PROMPTS]:
            log_probs = sums.log_probs[row]
            self.samples.append(
                {
                    "step": step.rows.step,
                    **answer.readable(self.writing.text),
                    "teacher_logprob": log_probs.teacher,
                    "student_logprob": log_probs.student,
                    "writer": "mixed" if self.writing.recipe.answers == "mixed" else "student",
                }
            )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
