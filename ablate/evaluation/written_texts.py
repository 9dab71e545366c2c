"""What a model wrote to lm-eval's generation tasks: the texts as they were scored, their tokens, and which were cut."""

import contextlib
import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

Request: TypeAlias = Sequence[Any]
"""Prompt and settings, as lm-eval has them."""


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
        self._batch: list[NamedText] = []
        self._by_request: dict[str, deque[WrittenText]] = defaultdict(deque)
        self._known: dict[str, deque[WrittenText]] = defaultdict(deque)
        self._apart: list[NamedText] | None = None

    def begin(self, known: Iterable["NamedText"]) -> None:
        """A task begins, of which an earlier attempt came to these texts."""
        self._endings.clear()
        self._by_request.clear()
        self._known.clear()
        self.know(known)

    def know(self, texts: Iterable["NamedText"]) -> None:
        """Of texts that were written elsewhere: by an earlier attempt, or another rank."""
        for name, text in texts:
            self._known[name].append(text)

    @contextlib.contextmanager
    def kept_apart(self) -> Iterator[list["NamedText"]]:
        """What is written meanwhile goes into the list alone, to be known by all ranks."""
        self._apart = []
        try:
            yield self._apart
        finally:
            self._apart = None

    def recall(self, request: Request) -> str | None:
        """-> the text that an earlier attempt came to; None of texts that are drawn, which begin anew."""
        name = request_name(request)
        if not self._known[name] or is_drawn(request[1]):
            return None
        text = self._known[name].popleft()
        self._by_request[name].append(text)
        return text.text

    def expect(self, ids_BT: torch.Tensor, stops: Sequence[str]) -> None:
        """Of a batch that was generated: the new tokens, whose texts come next."""
        self._endings.extend(self._has_ended(ids, stops) for ids in ids_BT.tolist())

    def add(self, request: Request, text: str) -> list["NamedText"]:
        """Of one text of the batch that was expected. -> with its last one, all of the batch."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        named = NamedText(request_name(request), WrittenText(text, len(ids), self._endings.popleft()))
        if self._apart is not None:
            self._apart.append(named)
            return []
        self._by_request[named.name].append(named.text)
        self._batch.append(named)
        if self._endings:
            return []
        batch, self._batch = self._batch, []
        return batch

    def take(self, request: Request, num: int) -> list[WrittenText]:
        """-> the next answers to a request: a question that stands in a task twice has its own each time."""
        if not self._by_request:
            return []
        texts = self._by_request[request_name(request)]
        return [texts.popleft() for _ in range(min(num, len(texts)))]

    def _has_ended(self, ids: Sequence[int], stops: Sequence[str]) -> bool:
        if not self._end_ids.isdisjoint(ids):
            return True
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop and stop in text for stop in stops)


class NamedText(NamedTuple):
    """A text under the request that it answers."""

    name: str
    text: WrittenText


def request_name(request: Request) -> str:
    return json.dumps(request, sort_keys=True, default=str)


def is_drawn(settings: Mapping[str, Any]) -> bool:
    """Whether texts hang on random numbers, and so on all that were drawn before."""
    draws = settings.get("do_sample")
    return bool(draws) or (draws is None and bool(settings.get("temperature")))
