"""What a model wrote to lm-eval's generation tasks: the texts as they were scored, their tokens, and which were cut."""

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class WrittenText(NamedTuple):
    """One answer."""

    text: str
    """As lm-eval scores it: up to the first of the task's stop sequences."""
    num_tokens: int
    """Of that text, encoded again."""
    has_ended: bool
    """By the model's end token or a stop sequence; else it was cut at `max_gen_toks`."""


class WrittenTexts:
    """The answers of one task, as they come from lm-eval's model class: batch by batch, then one after the other."""

    def __init__(self, tokenizer: Any, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._endings: deque[bool] = deque()
        self._by_request: dict[str, deque[WrittenText]] = defaultdict(deque)

    def expect(self, ids_BT: torch.Tensor, stops: Sequence[str]) -> None:
        """Of a batch that was generated: the new tokens, whose texts come next."""
        self._endings.extend(self._has_ended(ids, stops) for ids in ids_BT.tolist())

    def add(self, request: Sequence[Any], text: str) -> None:
        """Of one text of the batch that was expected. `request`: prompt and settings, as lm-eval has them."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        self._by_request[_name(request)].append(WrittenText(text, len(ids), self._endings.popleft()))

    def take(self, request: Sequence[Any], num: int) -> list[WrittenText]:
        """-> the next answers to a request: a question that stands in a task twice has its own each time."""
        texts = self._by_request[_name(request)] if self._by_request else deque[WrittenText]()
        return [texts.popleft() for _ in range(min(num, len(texts)))]

    def clear(self) -> None:
        """Before another task."""
        self._endings.clear()
        self._by_request.clear()

    def _has_ended(self, ids: Sequence[int], stops: Sequence[str]) -> bool:
        if not self._end_ids.isdisjoint(ids):
            return True
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop and stop in text for stop in stops)


def _name(request: Sequence[Any]) -> str:
    return json.dumps(request, sort_keys=True, default=str)
