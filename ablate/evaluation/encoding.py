"""Requests to tokens, exactly as lm-eval's HFLM does it, each text once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

from ablate.evaluation.known_tokens import tokenised
from ablate.evaluation.trees import Request


class Encoded(NamedTuple):
    """What is forwarded for some requests."""

    requests: list[Request]
    num_cut: int
    """Longer than the model's window, and cut from the left as lm-eval does."""


def encode(lm: Any, pairs: Sequence[tuple[str, str]], folder: Path | None = None) -> Encoded | None:
    """(context, continuation) pairs -> requests; None where lm-eval's own path is to answer (or refuse) them.

    `folder`: where tokens are kept for the next model with this tokenizer.
    """
    moved = [_with_spaces_moved(context, continuation) for context, continuation in pairs]
    with_context = (pair for (context, _), pair in zip(pairs, moved, strict=True) if context)  # spaces alone too
    ids = _ids(lm, dict.fromkeys(text for bare, rest in with_context for text in (bare, bare + rest)), folder)
    window, num_cut = lm.max_length, 0
    requests = []
    for (context, _), (bare, rest) in zip(pairs, moved, strict=True):
        above, continuation = _split_whole(ids, bare, rest) if context else _without_context(lm, rest)
        if not above or not 0 < len(continuation) <= window:
            return None
        whole = [*above, *continuation]
        num_cut += len(whole) > window + 1
        requests.append(Request(context, tuple(whole[-(window + 1) :][:-1]), tuple(continuation)))
    return Encoded(requests, num_cut)


def _with_spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    """Spaces that end the context begin the continuation."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _ids(lm: Any, texts: Iterable[str], folder: Path | None) -> Mapping[str, Sequence[int]]:
    """A text that writes its first special token itself gets no other."""
    first = lm.tokenizer.decode(lm.prefix_token_id)
    ids: dict[str, Sequence[int]] = {}
    for has_first, settings in (
        (True, {"add_special_tokens": False}),
        (False, _add_special_kwargs(None, lm.add_bos_token)),
    ):
        chosen = [text for text in texts if has_bos_prefix(text, first) == has_first]
        if chosen:
            ids |= zip(chosen, tokenised(folder, lm.tokenizer, chosen, settings), strict=True)
    return ids


def _split_whole(ids: Mapping[str, Sequence[int]], context: str, rest: str) -> tuple[Sequence[int], Sequence[int]]:
    above = ids[context]
    return above, ids[context + rest][len(above) :]


def _without_context(lm: Any, continuation: str) -> tuple[Sequence[int], Sequence[int]]:
    """The model's first token stands for an empty context, unless the continuation begins with it."""
    ids = lm.tok_encode(continuation, add_special_tokens=False)
    return (ids[:1], ids[1:]) if ids[:1] == [lm.prefix_token_id] else ([lm.prefix_token_id], ids)
