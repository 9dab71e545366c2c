"""Log-likelihoods of a forest of requests: what is shared is forwarded once, logits made only where one is scored."""

import inspect
import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from ablate.core.errors import StageError
from ablate.evaluation.trees import Forest, Tree
from ablate.training import batches
from ablate.training.loss import Scratch, chunks
from ablate.training.model_parts import ModelParts
from ablate.training.ranks import ONE, Ranks

MODERATE = 60.0
"""The exponential of a largest logit no further from 0, and a sum of a million of them, is an ordinary float32."""

# B trees of at most T nodes side by side, K = tokens of the common prefix + T, M nodes read, C of them in one chunk,
# S tokens scored, D hidden width, V vocabulary


class Response(NamedTuple):
    """Of one request, as lm-eval takes it."""

    loglikelihood: float
    is_greedy: bool


class TokenScores(NamedTuple):
    """Of each token scored."""

    logprob_S: Tensor
    is_greedy_S: Tensor


@dataclass
class ForestScorer:
    """Runs forests through one model."""

    model: ModelParts
    """Its head as wide as the model's, padding included: so lm-eval normalises."""
    budget: int
    """Tokens forwarded at once."""
    device: str
    num_too_many: float = math.inf
    """So many tokens at once have run out of memory."""
    scratch: Scratch = field(default_factory=Scratch)
    cache_argument: str = field(init=False)
    """What the model calls keys and values that it is given: transformers 5 changed the name."""

    def __post_init__(self) -> None:
        names = inspect.signature(self.model.body.module.forward).parameters
        self.cache_argument = "cache" if "cache" in names else "past_key_values"

    @torch.no_grad()
    def responses(
        self,
        forest: Forest,
        continuations: Sequence[Sequence[int]],
        known: AbstractSet[int] = frozenset(),
        ranks: Ranks = ONE,
    ) -> Iterator[dict[int, Response]]:
        """-> those of a micro-batch, by number of the request; where all requests are `known`, it is left out.

        The micro-batches depend on the forest and the budget alone, and `ranks` share them. Raises StageError when a
        tree is too much for the memory.
        """
        prefix = self._prefix(forest.prefix)
        parts = batches.partition([len(tree) for tree in forest.trees], self.budget, self.model.cutting.overhead)
        left = [part for part in parts if not known >= _requests(forest.trees[part])]
        yield from ranks.rounds(
            left, lambda part: self._batch_responses_fitting(prefix, forest.trees[part], continuations)
        )

    def _batch_responses_fitting(
        self, prefix: DynamicCache | None, trees: Sequence[Tree], continuations: Sequence[Sequence[int]]
    ) -> dict[int, Response]:
        """Out of memory, a micro-batch is taken in two halves, and those that come are at once."""
        num_tokens = len(trees) * len(trees[0])
        if len(trees) == 1 or num_tokens < self.num_too_many:
            try:
                return self._batch_responses(prefix, trees, continuations)
            except torch.OutOfMemoryError as error:
                if len(trees) == 1:
                    raise StageError(f"out of memory with one question of {num_tokens} tokens", "oom") from error
            self.num_too_many = num_tokens
            if self.device != "cpu":
                torch.cuda.empty_cache()
        half = len(trees) // 2
        return self._batch_responses_fitting(prefix, trees[:half], continuations) | self._batch_responses_fitting(
            prefix, trees[half:], continuations
        )

    def _prefix(self, ids: Sequence[int]) -> DynamicCache | None:
        if not ids:
            return None
        cache = DynamicCache()
        self.model.body(
            input_ids=torch.tensor([ids], device=self.device), use_cache=True, **{self.cache_argument: cache}
        )
        return cache

    def _batch_responses(
        self, prefix: DynamicCache | None, trees: Sequence[Tree], continuations: Sequence[Sequence[int]]
    ) -> dict[int, Response]:
        width = len(trees[0])
        nodes = [np.concatenate(tree.scored_nodes) + row * width for row, tree in enumerate(trees)]
        numbers = [number for tree in trees for number in tree.requests]
        read_M, where_S = np.unique(np.concatenate(nodes), return_inverse=True)
        tokens_S = np.fromiter((token for number in numbers for token in continuations[number]), np.int64)
        hidden_MD = self._hidden(prefix, trees, torch.from_numpy(read_M).to(self.device))
        scores = self.token_scores(hidden_MD, torch.from_numpy(where_S), torch.from_numpy(tokens_S))
        sizes = [len(continuations[number]) for number in numbers]
        return {
            number: Response(float(logprobs.sum()), bool(greedy.all()))
            for number, logprobs, greedy in zip(
                numbers, torch.split(scores.logprob_S, sizes), torch.split(scores.is_greedy_S, sizes), strict=True
            )
        }

    def _hidden(self, prefix: DynamicCache | None, trees: Sequence[Tree], read_M: Tensor) -> Tensor:
        ids_BT = np.zeros((len(trees), len(trees[0])), np.int64)
        for row, tree in enumerate(trees):
            ids_BT[row, : len(tree)] = tree.ids
        states_BTD = self.model.body(
            input_ids=torch.from_numpy(ids_BT).to(self.device),
            use_cache=prefix is not None,
            **({self.cache_argument: _repeated_prefix(prefix, len(trees))} if prefix else {}),
            **(self._visibility(trees, prefix) if any(tree.is_branching for tree in trees) else {}),
        )
        return states_BTD.flatten(0, 1)[read_M]

    def _visibility(self, trees: Sequence[Tree], prefix: DynamicCache | None) -> dict[str, Tensor]:
        """-> where each node stands and what it sees; without branches a model knows by itself."""
        num_prefix, width = prefix.get_seq_length() if prefix else 0, len(trees[0])
        positions_BT = np.zeros((len(trees), width), np.int64)
        seen_BTK = np.zeros((len(trees), width, num_prefix + width), np.bool_)
        seen_BTK[:, np.arange(width), num_prefix + np.arange(width)] = True  # padding sees itself: no row is all masked
        seen_BTK[:, :, :num_prefix] = True
        for row, tree in enumerate(trees):
            positions_BT[row, : len(tree)] = tree.positions
            seen_BTK[row, : len(tree), num_prefix : num_prefix + len(tree)] = tree.visible()
        return {
            "position_ids": torch.from_numpy(positions_BT).to(self.device),
            "attention_mask": self._mask(torch.from_numpy(seen_BTK).to(self.device)),
        }

    def _mask(self, seen_BTK: Tensor) -> Tensor:
        """-> what is added to attention scores; every attention of transformers takes a mask of four dimensions so."""
        dtype = self.model.model.dtype
        mask_BTK = torch.zeros(seen_BTK.shape, dtype=dtype, device=self.device)
        return mask_BTK.masked_fill_(~seen_BTK, torch.finfo(dtype).min).unsqueeze(1)

    def token_scores(self, hidden_MD: Tensor, where_S: Tensor, tokens_S: Tensor) -> TokenScores:
        """Log q of each token, in float32 or wider; greedy where the token is the first of the likeliest."""
        order_S = torch.argsort(where_S, stable=True)
        dtype = torch.promote_types(hidden_MD.dtype, torch.float32)
        logprob_S, is_greedy_S = torch.empty(len(where_S), dtype=dtype), torch.empty(len(where_S), dtype=torch.bool)
        for chunk in chunks(hidden_MD, self.model.head.vocabulary):
            hidden_CD = hidden_MD[chunk]
            logits_CV = self.model.head.logits(hidden_CD, self.scratch("logits", hidden_CD, self.model.head.vocabulary))
            begin, end = torch.searchsorted(where_S[order_S], torch.tensor([chunk.start, chunk.start + len(hidden_CD)]))
            chosen = order_S[begin:end]
            rows, tokens = (where_S[chosen] - chunk.start).to(self.device), tokens_S[chosen].to(self.device)
            logprob, is_greedy = self._chunk_scores(hidden_CD, logits_CV, rows, tokens)
            logprob_S[chosen], is_greedy_S[chosen] = logprob.cpu(), is_greedy.cpu()
        return TokenScores(logprob_S, is_greedy_S)

    def _chunk_scores(
        self, hidden_CD: Tensor, logits_CV: Tensor, rows: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-> log q of each token, whether it is greedy. A third of log_softmax's time, which makes more passes."""
        highest_C = logits_CV.amax(1)
        is_moderate = bool(highest_C.abs().max() <= MODERATE)
        if not is_moderate:  # in place: two tensors of this size are held, not three
            logits_CV.sub_(highest_C[:, None])
            highest_C = torch.zeros_like(highest_C)
        sums_C = torch.exp(logits_CV, out=self.scratch("exponentials", hidden_CD, logits_CV.shape[1])).sum(1)
        logprob = logits_CV[rows, tokens] - sums_C.log()[rows]
        return logprob, _is_first(logits_CV, rows, tokens, highest_C[rows], logprob)


def _is_first(logits_CV: Tensor, rows: Tensor, tokens: Tensor, highest: Tensor, logprob: Tensor) -> Tensor:
    """Whether each token is the likeliest of its row; of equally likely ones the first is, as argmax has it."""
    is_first = logits_CV[rows, tokens] == highest
    unsure = (is_first & (logprob <= math.log(0.5))).nonzero().squeeze(1)  # one with more than half has no equal
    is_first[unsure] = logits_CV[rows[unsure]].argmax(1) == tokens[unsure]
    return is_first


def _requests(trees: Sequence[Tree]) -> set[int]:
    return {number for tree in trees for number in tree.requests}


def _repeated_prefix(prefix: DynamicCache, num: int) -> DynamicCache:
    """-> the prefix's keys and values for `num` rows, in a cache of their own that a forward pass adds to."""
    pairs = ((layer.keys, layer.values) for layer in prefix.layers)
    return DynamicCache([(keys.expand(num, -1, -1, -1), values.expand(num, -1, -1, -1)) for keys, values in pairs])
