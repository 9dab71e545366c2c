"""What is asked of a model that writes answers, and what it wrote."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ablate.core.values import Json
from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows

END_SHARE = 0.01
"""Of the answers in the rows: a special token that ends fewer of them is no end."""


class Prompt(NamedTuple):
    """What a model goes on from."""

    row: int
    number: int
    """Which of the row's answers, 0 the first."""
    ids: tuple[int, ...]


class Answer(NamedTuple):
    """What it wrote."""

    prompt: Prompt
    ids: tuple[int, ...]
    """With the token that ended it."""
    ended: bool
    """By itself; else it was cut."""
    logprob: float | None = None
    """Mean over its tokens of the writer's log-probability at temperature 1, where that was asked for."""

    @property
    def token_row(self) -> TokenRow:
        """The prompt and the answer, whose tokens alone count, the ending one too."""
        prompt, ids = list(self.prompt.ids), list(self.ids)
        return TokenRow(prompt + ids, [False] * len(prompt) + [True] * len(ids))

    def readable(self, text: Callable[[Sequence[int]], str]) -> dict[str, Json]:
        """-> what a person reads of it; `text`: of tokens."""
        return {
            "row": self.prompt.row,
            "prompt": text(self.prompt.ids),
            "answer": text(self.ids),
            "num_tokens": len(self.ids),
            "ended": self.ended,
        }


def prompt_ids(rows: TokenRows, index: int) -> tuple[int, ...]:
    """-> the tokens before the row's last answer: before the last run of loss-bearing tokens.

    Empty where the answer is the whole row; the whole row where nothing of it counts.
    """
    tokens, loss_mask = rows.row(index)
    return tuple(tokens[: _last_run(loss_mask)[0]].tolist())


def _last_run(loss_mask: Any) -> tuple[int, int]:
    """-> where the last run of ones begins and ends."""
    counted = np.flatnonzero(loss_mask)
    if not len(counted):
        return len(loss_mask), len(loss_mask)
    end = int(counted[-1]) + 1
    others = np.flatnonzero(loss_mask[:end] == 0)
    return int(others[-1]) + 1 if len(others) else 0, end


def end_tokens(rows: TokenRows, tokenizer: Any, models: Iterable[Any]) -> frozenset[int]:
    """-> the tokens with which an answer is over.

    The end of sequence of the tokenizer and of the models' generation configs; and the special tokens with which the
    rows' own answers end: what the chat template writes after a turn (`<|im_end|>`, with or without a line's end).
    Without any, no answer ends by itself.
    """
    ends = set(_ids(tokenizer.eos_token_id))
    for model in models:
        for config in (getattr(model, "generation_config", None), model.config.get_text_config()):
            ends |= _ids(getattr(config, "eos_token_id", None))
    return frozenset(ends | _template_ends(rows, tokenizer)) & frozenset(range(len(tokenizer)))


def _ids(eos: Any) -> set[int]:
    if eos is None:
        return set()
    return {int(eos)} if isinstance(eos, int) else {int(i) for i in eos}


def _template_ends(rows: TokenRows, tokenizer: Any) -> set[int]:
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    last = [token for index in range(len(rows)) for token in _special_at_end(rows, index, special)]
    num_answers = int((rows.num_loss > 0).sum())  # of rows that a teacher wrote, only those that are read have one
    return {token for token in set(last) if last.count(token) >= max(1, END_SHARE * num_answers)}


def _special_at_end(rows: TokenRows, index: int, special: set[int]) -> Iterator[int]:
    """-> the special token among the last two of a row's last answer, if there is one."""
    tokens, loss_mask = rows.row(index)
    begin, end = _last_run(loss_mask)
    yield from [token for token in tokens[max(begin, end - 2) : end][::-1].tolist() if token in special][:1]
