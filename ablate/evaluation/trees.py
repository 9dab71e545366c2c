"""What requests share, found in their token ids: each question is a tree of its answers, run as one flat row."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# T nodes of a tree, depth first; a node is a token under the tokens before it

MOST_NODES = 8192
"""A question with more is cut in two: the mask of a tree grows with their square."""
LEAST_PREFIX = 16
"""A shorter beginning common to all is not worth keeping its keys and values apart."""
LEAST_SHOTS, LEAST_ALIKE = 64, 8
"""So many questions that begin alike for so many tokens, with the same examples say, are worth a forest of their own."""


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
    read: list[NDArray[np.int64]] = field(default_factory=list)
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
    """Questions that begin alike."""

    prefix: tuple[int, ...]
    """What every request begins with."""
    trees: tuple[Tree, ...]
    """Widest first."""

    @property
    def num_tokens(self) -> int:
        """Forwarded, padding not counted."""
        return len(self.prefix) + sum(map(len, self.trees))


def plant(requests: Sequence[Request]) -> list[Forest]:
    """-> the trees of all requests; those of one beginning together."""
    questions: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        questions.setdefault(request.question, []).append(number)
    shots = [_beginning([requests[number] for number in numbers])[:LEAST_SHOTS] for numbers in questions.values()]
    times = Counter(one for one in shots if len(one) == LEAST_SHOTS)
    alike: dict[tuple[int, ...], list[list[int]]] = {}
    for one, numbers in zip(shots, questions.values(), strict=True):
        alike.setdefault(one if times[one] >= LEAST_ALIKE else (), []).append(numbers)
    return [_forest(requests, of) for of in alike.values()]


def _forest(requests: Sequence[Request], questions: Sequence[list[int]]) -> Forest:
    all_of_it = [requests[number] for numbers in questions for number in numbers]
    prefix = _beginning(all_of_it) if len(questions) > 1 else ()
    prefix = prefix if len(prefix) >= LEAST_PREFIX else ()
    trees = [tree for numbers in questions for tree in _grow(requests, numbers, len(prefix))]
    return Forest(prefix, tuple(sorted(trees, key=len, reverse=True)))


def _beginning(requests: Sequence[Request]) -> tuple[int, ...]:
    """-> the tokens that all begin with, nothing of which is scored."""
    first, last = min(request.ids for request in requests), max(request.ids for request in requests)
    return first[: min(_shared(first, last), *(request.num_context for request in requests))]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """-> how many tokens two sequences begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _grow(requests: Sequence[Request], numbers: Iterable[int], size: int) -> Iterator[Tree]:
    tree, path = Tree(), np.empty(0, np.int64)
    before: tuple[int, ...] = ()
    for number in sorted(numbers, key=lambda number: (requests[number].ids, number)):
        request = requests[number]
        ids = request.ids[size:]
        shared = _shared(before, ids)
        if tree.ids and (not shared or (len(ids) > shared and len(tree) + len(ids) - shared > MOST_NODES)):
            yield tree
            tree, path, shared = Tree(), np.empty(0, np.int64), 0
        begin, end = len(tree), len(tree) + len(ids) - shared
        path = np.concatenate([path[:shared], np.arange(begin, end)])
        if end > begin:
            tree.branches.append((begin, end, path[:shared]))
            tree.ids += ids[shared:]
            tree.positions += range(size + shared, size + len(ids))
        tree.requests.append(number)
        tree.read.append(path[len(path) - len(request.continuation) :])
        before = ids
    yield tree


def hardest(forests: Sequence[Forest]) -> list[Forest]:
    """-> the widest tree of all, the most branching and the deepest."""
    places = [(forest, tree) for forest in range(len(forests)) for tree in range(len(forests[forest].trees))]
    measures: Sequence[Callable[[Tree], int]] = (len, lambda tree: len(tree.branches), lambda tree: max(tree.positions))
    chosen = {max(places, key=lambda place: measure(forests[place[0]].trees[place[1]])) for measure in measures}
    return [
        of._replace(trees=tuple(of.trees[tree] for forest, tree in sorted(chosen) if forest == number))
        for number, of in enumerate(forests)
        if any(forest == number for forest, _ in chosen)
    ]
