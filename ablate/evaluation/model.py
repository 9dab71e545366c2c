"""The model as lm-eval asks it: what requests share is run once; other kinds of requests go lm-eval's own way."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM

from ablate.engine.batches import first_budget
from ablate.engine.split import Split, split
from ablate.errors import StageError
from ablate.evaluation.answering import Answering, Response
from ablate.evaluation.encoding import encode
from ablate.evaluation.trees import Request, plant

NUM_PROBED = 6
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Of a log-likelihood and 1: the same tokens, beside others or alone."""


class Listener(Protocol):
    """Who asks."""

    def known(self) -> Mapping[int, Response]:
        """-> answers of the task at hand that an earlier attempt came to, by number of the request."""

    def hear(self, found: Mapping[int, Response]) -> None:
        """Of requests answered. May raise Interrupted."""

    def count(self) -> None:
        """Of one request that lm-eval's own class answered. May raise Interrupted."""

    def note(self, name: str, what: str) -> None:
        """Of something that a reader of the result may want to know."""


class _Heard(CacheHook):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval hands every answer to the model's cache hook the moment it is there: a place to count them."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(None)
        self._listener = listener

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._listener.count()


class SharingLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """HFLM's answers, with the tokens that requests share forwarded once."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, listener: Listener) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.set_cache_hook(_Heard(listener))
        self._listener = listener
        self.num_forwarded = 0
        """Tokens, padding not counted."""

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        encoded = encode(self, [request.args for request in requests])
        answering = self._answering(encoded.requests) if encoded else None
        if encoded is None or answering is None:
            answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
            return answers
        if encoded.num_cut:
            self._listener.note(
                "cut from the left", f"{encoded.num_cut} of {len(requests)} requests, at {self.max_length} tokens"
            )
        forest, found = plant(encoded.requests), dict(self._listener.known())
        self.num_forwarded += forest.num_tokens
        continuations = [request.continuation for request in encoded.requests]
        for responses in answering.answers(forest, continuations, set(found)):
            found |= responses
            self._listener.hear(responses)
        return [found[number] for number in range(len(requests))]

    def _answering(self, requests: Sequence[Request]) -> Answering | None:
        """-> what answers by trees, where the model takes them; proven on a few requests before it is trusted."""
        try:
            parts = split(self.model, _head_size(self.model))
            answering = Answering(parts, first_budget(None, self.device.type), str(self.device))
            difference = _difference(answering, parts, requests)
        except torch.OutOfMemoryError:
            raise
        except (StageError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            self._listener.note("nothing was shared", f"{type(self.model).__name__} takes no tree of requests: {error}")
            return None
        if difference <= TOLERANCE[self.model.dtype]:
            return answering
        self._listener.note(
            "nothing was shared", f"{type(self.model).__name__}: trees of requests differ by {difference:.1e}"
        )
        return None


def _head_size(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.get_text_config().vocab_size)


@torch.no_grad()
def _difference(answering: Answering, model: Split, requests: Sequence[Request]) -> float:
    """-> the largest difference of log-likelihoods, over theirs and 1, of some requests in trees and each alone."""
    chosen = [*requests[:NUM_PROBED], *requests[-NUM_PROBED:]]
    continuations = [request.continuation for request in chosen]
    found: dict[int, Response] = {}
    for responses in answering.answers(plant(chosen), continuations):
        found |= responses
    alone = [_alone(answering, model, request) for request in chosen]
    return max(abs(found[number].loglikelihood - one) / (1 + abs(one)) for number, one in enumerate(alone))


def _alone(answering: Answering, model: Split, request: Request) -> float:
    """-> the log-likelihood by a plain forward pass."""
    ids_1T = torch.tensor([request.ids], device=answering.device)
    positions_S = torch.arange(request.num_context, len(request.ids), device=answering.device)
    scores = answering.scores(
        model.hidden(ids_1T, positions_S), torch.arange(len(positions_S)), torch.tensor(request.continuation)
    )
    return float(scores.logprob_S.sum())
