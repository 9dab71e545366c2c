"""Answers to prompts, token by token, in groups that follow from the prompts and the recipe alone."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.data.answer_groups import most_together
from ablate.study.answer_settings import Sampling
from ablate.training.key_values import bytes_a_token
from ablate.training.model_parts import ModelParts
from ablate.training.prompts import Answer, Prompt
from ablate.training.ranks import ONE, Ranks
from ablate.training.readers import Reader, asked_only, is_cache_exact, reader
from ablate.training.token_draws import Draws, next_tokens

# B answers being written, N tokens of each, V vocabulary

LEAVING_SHARE = 1 / 8
"""Ended answers leave the batch once they are such a share of it."""


@dataclass(frozen=True, eq=False)
class Writer:
    """Who writes answers: one model, or a mixture of two."""

    model: ModelParts
    ends: frozenset[int]
    """Tokens that end an answer."""
    teacher: ModelParts | None = None
    """Of `answers: mixed`: each token is drawn from mix p + (1 - mix) q, p this one's distribution."""
    ranks: Ranks = ONE
    """Who share the groups."""

    @property
    def models(self) -> tuple[ModelParts, ...]:
        return (self.teacher, self.model) if self.teacher else (self.model,)

    @cached_property
    def are_caches_exact(self) -> tuple[bool, ...]:
        """Of each model, whether it may read with a cache; looked at once."""
        with self.asked_only():
            return tuple(map(is_cache_exact, self.models))

    @contextlib.contextmanager
    def asked_only(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for parts in self.models:
                stack.enter_context(asked_only(parts.model))
            yield

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.model.device
        return device

    @property
    def bytes_a_token(self) -> int:
        """Of keys and values."""
        configs = (
            (parts.model.config.get_text_config(), next(parts.model.parameters()).dtype) for parts in self.models
        )
        return sum(bytes_a_token(*one) for one in configs)

    def is_short(self, num_tokens: int) -> bool:
        """Whether no model runs a text of so many tokens otherwise than its beginning (LongRoPE)."""
        return all(num_tokens <= border for parts in self.models for border in parts.cutting.borders)

    def readers(self, texts: Sequence[Sequence[int]], most: int) -> tuple[Reader, ...]:
        """-> one a model; `most`: tokens that a text may come to."""
        are_cached = self.are_caches_exact if self.is_short(most) else (False,) * len(self.models)
        models = zip(self.models, are_cached, strict=True)
        return tuple(reader(parts, texts, is_cached=is_cached) for parts, is_cached in models)


def write_answers(
    writer: Writer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    draws: Draws,
    after_group: Callable[[Sequence[Answer]], None] = lambda answers: None,
    on_halved: Callable[[int], None] = lambda num: None,
    *,
    is_scored: bool = False,
) -> list[Answer]:
    """-> an answer to each prompt, in their order. `after_group` hears of the answers of each group once it is done.

    `on_halved` hears, out of memory, how many answers are written together from there on; `is_scored`: each answer with
    its `logprob`, of the student where two models write.

    On a CPU an answer depends on nothing but the model, the prompts asked together and `draws`. Out of memory, a group
    is halved: its answers may then differ where rounding moves a token across its border.
    Raises StageError for a prompt of no token or without room for its answer, and out of memory with one alone.
    """
    require_room(writer, prompts, sampling)
    answers: dict[Prompt, Answer] = {}
    with torch.no_grad(), writer.asked_only():
        asked = _Asked(writer, sampling, draws, is_scored)
        for written in writer.ranks.rounds([*groups(writer, prompts, sampling)], lambda group: _written(asked, group)):
            for num in written.halved:
                on_halved(num)
            after_group(written.answers)
            answers |= {answer.prompt: answer for answer in written.answers}
    return [answers[prompt] for prompt in prompts]


def require_room(writer: Writer, prompts: Sequence[Prompt], sampling: Sampling) -> None:
    """Raises StageError where a model has too few positions for a prompt and its answer."""
    if any(not prompt.ids for prompt in prompts):
        row = next(prompt.row for prompt in prompts if not prompt.ids)
        raise StageError(
            f"row {row} has no prompt: all of it counts in the loss; say train_on_prompt: false, or answers: dataset"
        )
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    for parts in writer.models:
        limit = getattr(parts.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and longest + sampling.max_new_tokens > limit:
            raise StageError(
                f"a prompt of {longest} tokens and an answer of {sampling.max_new_tokens} are more than the {limit}"
                f" positions of {type(parts.model).__name__}: set data.max_length or sampling.max_new_tokens lower"
            )


def groups(writer: Writer, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, ...]]:
    """-> the prompts that are answered together, the longest first.

    Those whose text may become so long that the model runs it otherwise are answered alone.
    """
    group: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.row, prompt.number)):
        most = len((group or [prompt])[0].ids) + sampling.max_new_tokens
        if group and (len(group) == most_together(most * writer.bytes_a_token) or not writer.is_short(most)):
            yield tuple(group)
            group = []
        group.append(prompt)
    if group:
        yield tuple(group)


class _Asked(NamedTuple):
    """What is the same for all groups."""

    writer: Writer
    sampling: Sampling
    draws: Draws
    is_scored: bool


class _Written(NamedTuple):
    """What came of a group."""

    answers: Sequence[Answer]
    halved: Sequence[int]
    """Out of memory, so many were written together from there on."""


def _written(asked: _Asked, group: tuple[Prompt, ...]) -> _Written:
    halved: list[int] = []
    return _Written(_group_fitting(asked, group, halved.append), halved)


def _group_fitting(asked: _Asked, group: tuple[Prompt, ...], on_halved: Callable[[int], None]) -> list[Answer]:
    """Out of memory, its halves are written one after the other."""
    try:
        with asked.writer.ranks.passing():
            return _group(asked, group)
    except torch.OutOfMemoryError as error:
        if len(group) == 1:
            raise StageError(
                f"out of memory with one prompt of {len(group[0].ids)} tokens at a time: give the stage a card with"
                " more memory, or set sampling.max_new_tokens or data.max_length lower",
                "oom",
            ) from error
    torch.cuda.empty_cache()
    half = len(group) // 2
    on_halved(half)
    return [*_group_fitting(asked, group[:half], on_halved), *_group_fitting(asked, group[half:], on_halved)]


def _group(asked: _Asked, group: Sequence[Prompt]) -> list[Answer]:
    most = len(group[0].ids) + asked.sampling.max_new_tokens
    readers = asked.writer.readers([prompt.ids for prompt in group], most)
    texts = _Texts(group, asked)
    logits = [one.first() for one in readers]
    while not texts.add(*_next(logits, asked, texts.next_uniforms)):
        if (staying := texts.drop_ended()) is not None:
            for one in readers:
                one.keep(staying)
        logits = [one.read(texts.last_B) for one in readers]
    return texts.answers


def _next(logits: Sequence[Tensor], asked: _Asked, uniforms_BL: Tensor) -> tuple[Tensor, Tensor | None]:
    """-> tokens, and the log-probability of each where it is asked for."""
    if not asked.is_scored:
        return next_tokens(logits, asked.sampling, uniforms_BL), None
    logprobs_BV = logits[-1].log_softmax(1)
    tokens_B = next_tokens(logits, asked.sampling, uniforms_BL)
    return tokens_B, logprobs_BV.gather(1, tokens_B.unsqueeze(1)).squeeze(1)


class _Texts:
    """The answers of a group, as far as they are written."""

    def __init__(self, group: Sequence[Prompt], asked: _Asked) -> None:
        self._group, self._ends, self._most = group, asked.writer.ends, asked.sampling.max_new_tokens
        uniforms_NBL = np.stack([asked.draws.uniforms(prompt, self._most) for prompt in group], 1)
        self._uniforms_NBL = torch.from_numpy(uniforms_NBL).to(asked.writer.device)
        self._ids: list[list[int]] = [[] for _ in group]
        self._logprobs: list[list[float]] = [[] for _ in group]
        self._is_open = [True] * len(group)
        self._read = list(range(len(group)))
        """Which of the group are in the batch, some of which may have ended."""
        self._num = 0
        self.last_B = torch.empty(0)

    @property
    def next_uniforms(self) -> Tensor:
        """Some for each text in the batch."""
        return self._uniforms_NBL[self._num]

    def add(self, tokens_B: Tensor, logprobs_B: Tensor | None = None) -> bool:
        """Adds a token to each. -> whether all are done."""
        self._num += 1
        self.last_B = tokens_B
        logprobs = repeat(None) if logprobs_B is None else logprobs_B.tolist()
        for place, token, logprob in zip(self._read, tokens_B.tolist(), logprobs, strict=False):
            if self._is_open[place]:
                self._ids[place].append(token)
                self._is_open[place] = token not in self._ends
                if logprob is not None:
                    self._logprobs[place].append(logprob)
        return self._num == self._most or not any(self._is_open)

    def drop_ended(self) -> Tensor | None:
        """-> which of the batch stay, where enough of it have ended."""
        staying = [b for b, place in enumerate(self._read) if self._is_open[place]]
        if len(self._read) - len(staying) < max(1, LEAVING_SHARE * len(self._read)):
            return None
        indices = torch.tensor(staying, device=self.last_B.device)
        self._read = [self._read[b] for b in staying]
        self._uniforms_NBL, self.last_B = self._uniforms_NBL[:, indices], self.last_B[indices]
        return indices

    @property
    def answers(self) -> list[Answer]:
        return [
            Answer(prompt, tuple(ids), not is_open, fmean(logprobs) if logprobs else None)
            for prompt, ids, is_open, logprobs in zip(
                self._group, self._ids, self._is_open, self._logprobs, strict=True
            )
        ]
