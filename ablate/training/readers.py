"""A model reading prompts and then one token after another: with a cache of keys and values where that is exact."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ablate.training.batches import ModelInputs
from ablate.training.key_values import KeysAndValues
from ablate.training.model_parts import SHAPE_TOLERANCE, ModelParts

# B texts, U different prompts, T positions, V vocabulary

PROBES = (7, 4, 7)
"""Lengths of what is read to see whether the cache is exact."""
CACHED_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


class _Names(NamedTuple):
    """What a model's forward calls its arguments."""

    cache: str | None
    """Before transformers 5.24 past_key_values; None: it takes no such cache, or no positions."""
    last_only: Mapping[str, int]
    """Of a model that is run whole: what asks it for the last position's logits alone."""


class Reader(Protocol):
    """One model and some texts that grow."""

    def first(self) -> Tensor:
        """-> B x V: logits of what follows the prompts, in float32 or wider."""

    def read(self, tokens_B: Tensor) -> Tensor:
        """Adds a token to each text. -> logits of what follows."""

    def keep(self, indices: Tensor) -> None:
        """Goes on with some of the texts."""


class CachedReader:
    """Reads each token once.

    Prompts are padded on the right, which nothing before it sees, so that they are read without a mask; one that is to
    have several answers, once. Then their keys and values are moved to the right: from there on all texts end in one
    column, and the padding before them is masked.
    """

    def __init__(self, parts: ModelParts, texts: Sequence[Sequence[int]]) -> None:
        self._parts, self._names = parts, _names(parts)
        self._cache = KeysAndValues(parts.model.config.get_text_config().num_hidden_layers)
        device = parts.model.device
        places = {text: number for number, text in enumerate(dict.fromkeys(map(tuple, texts)))}
        self._places_B = torch.tensor([places[tuple(text)] for text in texts], device=device)
        self._ids_UT, self._last_U, _ = _padded(list(places), device)
        self._num = self._ids_UT.shape[1]
        lengths = torch.tensor([[len(text)] for text in places], device=device)
        self._pads_B1 = self._num - lengths
        self._is_padded = bool(self._pads_B1.any())

    def first(self) -> Tensor:
        logits_UV = self._logits_of_prompts()
        if len(self._places_B) == len(logits_UV):
            return logits_UV
        self.keep(self._places_B)
        return logits_UV[self._places_B]

    def _logits_of_prompts(self) -> Tensor:
        settings = {} if self._is_padded else self._names.last_only
        states_UTD = self._states(input_ids=self._ids_UT, **settings)
        if not self._is_padded:
            return self._parts.head.logits(states_UTD[:, -1])
        self._cache.shift(self._pads_B1)
        return self._parts.head.logits(states_UTD.flatten(0, 1)[self._last_U])

    def read(self, tokens_B: Tensor) -> Tensor:
        self._num += 1
        settings: dict[str, Any] = {"position_ids": self._num - 1 - self._pads_B1}
        if self._is_padded:
            settings["attention_mask"] = torch.arange(self._num, device=tokens_B.device) >= self._pads_B1
        return self._parts.head.logits(self._states(input_ids=tokens_B.unsqueeze(1), **settings)[:, -1])

    def keep(self, indices: Tensor) -> None:
        self._pads_B1 = self._pads_B1[indices]
        self._is_padded = bool(self._pads_B1.any())
        self._cache.batch_select_indices(indices)

    def _states(self, **inputs: Any) -> Tensor:
        return self._parts.body(use_cache=True, **{str(self._names.cache): self._cache}, **inputs)


class WholeReader:
    """Reads every text anew for each token: right for every causal model, and slow."""

    def __init__(self, parts: ModelParts, texts: Sequence[Sequence[int]]) -> None:
        self._parts = parts
        self._texts = [list(text) for text in texts]

    def first(self) -> Tensor:
        return self._parts.head.logits(self._parts.hidden(_padded(self._texts, self._parts.model.device)))

    def read(self, tokens_B: Tensor) -> Tensor:
        for text, token in zip(self._texts, tokens_B.tolist(), strict=True):
            text.append(token)
        return self.first()

    def keep(self, indices: Tensor) -> None:
        self._texts = [self._texts[index] for index in indices.tolist()]


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> ModelInputs:
    """-> texts side by side, and where each ends."""
    width = max(map(len, texts))
    ids_BT = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    ends = torch.tensor([b * width + len(text) - 1 for b, text in enumerate(texts)], device=device)
    return ModelInputs(ids_BT, ends)


def reader(parts: ModelParts, texts: Sequence[Sequence[int]], *, is_cached: bool) -> Reader:
    return CachedReader(parts, texts) if is_cached else WholeReader(parts, texts)


def _names(parts: ModelParts) -> _Names:
    taken = inspect.signature(parts.body.module.forward).parameters
    cache = next((name for name in ("cache", "past_key_values") if name in taken), None)
    is_whole = parts.head.weight is None and "logits_to_keep" in taken
    return _Names(cache if "position_ids" in taken else None, {"logits_to_keep": 1} if is_whole else {})


@torch.no_grad()
def is_cache_exact(parts: ModelParts) -> bool:
    """Whether a model says the same with a cache of keys and values, beside padding, as of the whole text.

    Not of models that keep another state (Mamba), or whose positions are no argument (ALiBi).
    """
    config = parts.model.config.get_text_config()
    if _names(parts).cache is None or not set(getattr(config, "layer_types", None) or ()) <= CACHED_LAYERS:
        return False
    longest = max(PROBES) + 3
    tokens = [
        [(7919 * (longest * b + t) + 1) % parts.head.vocabulary for t in range(longest)] for b in range(len(PROBES))
    ]
    texts = [text[:length] for text, length in zip(tokens, PROBES, strict=True)]
    try:
        cached, whole = CachedReader(parts, texts), WholeReader(parts, texts)
        pairs = [(cached.first(), whole.first())]
        for place in range(3):
            following_B = torch.tensor([text[n + place] for text, n in zip(tokens, PROBES, strict=True)])
            following_B = following_B.to(parts.model.device)
            pairs.append((cached.read(following_B), whole.read(following_B)))
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False  # a model of an own sort, to which such a cache or such padding is strange
    tolerance = SHAPE_TOLERANCE[next(parts.model.parameters()).dtype]
    return all(float((a - b).abs().max()) <= tolerance * float(b.abs().max()) for a, b in pairs)


@contextlib.contextmanager
def asked_only(model: Any) -> Iterator[None]:
    """While it lasts a model is asked, not trained: nothing is dropped, no activation is to be made anew."""
    trained = [module for module in model.modules() if module.training]
    for module in trained:
        module.training = False  # of this module alone
    try:
        yield
    finally:
        for module in trained:
            module.training = True
