"""What requests share, found in their token ids: each question is a tree of its answers, run as one flat row."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.training.forward_memory import Trees

# T nodes of a tree, depth first; a node is a token under the tokens before it

MAX_NODES = 8192
"""A question with more is cut in two: the mask of a tree grows with their square."""
MIN_PREFIX = 16
"""A shorter beginning common to all is not worth keeping its keys and values apart."""


class Request(NamedTuple):
    """One continuation to be scored."""

    question: str
    """Equal where a tree is worth a try: the context."""
    ids: tuple[int, ...]
    """What is forwarded: context and continuation but the last token, cut from the left at the model's window."""
    continuation: tuple[int, ...]
    """Each token is predicted at the last `len(continuation)` positions of `ids`."""

    @property
    def num_context(self) -> int:
        return len(self.ids) - len(self.continuation)


@dataclass
class Tree:
    """The requests of one question, each token that they share once."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Of each node in its own sequence, the common prefix counted."""
    branches: list[tuple[int, int, NDArray[np.int64]]] = field(default_factory=list)
    """(first node, end, the nodes above it), one after the other."""
    requests: list[int] = field(default_factory=list)
    """Their numbers."""
    scored_nodes: list[NDArray[np.int64]] = field(default_factory=list)
    """For each request the nodes at which its continuation is predicted."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_branching(self) -> bool:
        return len(self.branches) > 1

    def visible(self) -> NDArray[np.bool_]:
        """-> T x T: which nodes (columns) each node sees: those above it and itself."""
        seen_TT = np.zeros((len(self), len(self)), np.bool_)
        for begin, end, above in self.branches:
            seen_TT[begin:end, above] = True
            seen_TT[begin:end, begin:end] = np.tri(end - begin, dtype=np.bool_)
        return seen_TT


class Forest(NamedTuple):
    """All requests of a task."""

    prefix: tuple[int, ...]
    """What every request begins with."""
    trees: tuple[Tree, ...]

    @property
    def held(self) -> Trees:
        """What of it decides how much a model holds."""
        num_scored = sum(len(np.unique(np.concatenate(tree.scored_nodes))) for tree in self.trees)
        return Trees(
            width=len(self.trees[0]),
            prefix=len(self.prefix),
            scored=num_scored / sum(map(len, self.trees)),
            is_branching=any(tree.is_branching for tree in self.trees),
        )

    def hardest(self) -> "Forest":
        """-> the widest tree, the most branching and the deepest."""
        numbers = range(len(self.trees))
        most = max(numbers, key=lambda number: len(self.trees[number].branches))
        deepest = max(numbers, key=lambda number: max(self.trees[number].positions))
        return Forest(self.prefix, tuple(self.trees[number] for number in sorted({0, most, deepest})))


def build_forest(requests: Sequence[Request]) -> Forest:
    """-> the trees of some requests, widest first."""
    size = _common_prefix(requests)
    questions: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        questions.setdefault(request.question, []).append(number)
    trees = [tree for numbers in questions.values() for tree in _trees_of_question(requests, numbers, size)]
    return Forest(requests[0].ids[:size] if requests else (), tuple(sorted(trees, key=len, reverse=True)))


def _common_prefix(requests: Sequence[Request]) -> int:
    """-> how many tokens all requests begin with, nothing of which is scored."""
    if len({request.question for request in requests}) < 2:
        return 0
    first, last = min(request.ids for request in requests), max(request.ids for request in requests)
    size = min(_num_shared(first, last), *(request.num_context for request in requests))
    return size if size >= MIN_PREFIX else 0


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """-> how many tokens two sequences begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _trees_of_question(requests: Sequence[Request], numbers: Iterable[int], size: int) -> Iterator[Tree]:
    tree, path = Tree(), np.empty(0, np.int64)
    before: tuple[int, ...] = ()
    for number in sorted(numbers, key=lambda number: (requests[number].ids, number)):
        request = requests[number]
        ids = request.ids[size:]
        shared = _num_shared(before, ids)
        if tree.ids and (not shared or (len(ids) > shared and len(tree) + len(ids) - shared > MAX_NODES)):
            yield tree
            tree, path, shared = Tree(), np.empty(0, np.int64), 0
        begin, end = len(tree), len(tree) + len(ids) - shared
        path = np.concatenate([path[:shared], np.arange(begin, end)])
        if end > begin:
            tree.branches.append((begin, end, path[:shared]))
            tree.ids += ids[shared:]
            tree.positions += range(size + shared, size + len(ids))
        tree.requests.append(number)
        tree.scored_nodes.append(path[len(path) - len(request.continuation) :])
        before = ids
    yield tree
