"""In which form a teacher's answers are kept, if at all: what costs its distillations the least.

All is counted in FLOPs; a byte that goes to the disk, or comes from it, costs those of the same time. It is written
while the teacher is asked, and read while the student computes, so that of the two only the longer counts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from ablate.store.stage import Stage

Way: TypeAlias = Literal["vector", "hidden", "top_k", "none"]
"""How a distillation asks its teacher: by kept vectors, hidden states or likeliest tokens, or none: it runs beside."""


class Prices(NamedTuple):
    """FLOPs of asking a teacher about every row once (or in proportion, where models are not here yet)."""

    body: float
    head: float
    vector: float
    """To make vectors of its logits: as much as the student's head."""
    student: float = 0.0
    """Of the student itself, going over every row once."""
    write: float = 0.0
    """Of a byte."""
    read: float = 0.0

    @property
    def of_free_disk(self) -> "Prices":
        return self._replace(write=0.0, read=0.0)


class User(NamedTuple):
    """A distillation, and which of its teachers is meant."""

    stage: Stage
    teacher: str
    """The input that it is: `teacher`, `teacher_2`, ..."""

    @property
    def aid(self) -> str:
        """As what the distillation is given this teacher's kept answers."""
        return f"{self.teacher}_cache"


class Group(NamedTuple):
    """Distillations of one teacher that one cache of vectors, or of likeliest tokens, would serve, or none would."""

    users: tuple[User, ...]
    ways: tuple[Way, ...]
    """Those possible, the plainer first."""
    share: float
    """Of the training rows: what a cache for them would hold."""
    passes: float
    """How often they go over the training rows, all together."""
    no_vector: str | None = None
    """Why vectors cannot serve them."""
    kept: Mapping[Way, float] = MappingProxyType({})
    """Bytes of all training rows, where that is known."""

    def flops(self, way: Way, prices: Prices) -> float:
        """Of hidden states without those of making them, which all groups share."""
        if way == "none":
            return self.passes * (prices.head + prices.body)
        if way == "hidden":
            return self.passes * (prices.head + self._waiting(way, prices, prices.student + prices.head))
        making = prices.body + prices.head + (prices.vector if way == "vector" else 0)
        return self.share * self.making(way, making, prices) + self.passes * self._waiting(way, prices, prices.student)

    def making(self, way: Way, flops: float, prices: Prices) -> float:
        """-> of all rows: of asking the teacher, or of writing what it says, whichever takes longer."""
        return max(flops, self.kept.get(way, 0.0) * prices.write)

    def _waiting(self, way: Way, prices: Prices, busy: float) -> float:
        """-> what reading all rows takes longer than what is computed meanwhile."""
        return max(0.0, self.kept.get(way, 0.0) * prices.read - busy)


class Choice(NamedTuple):
    """One teacher, some distillations that ask it the same, and what is done about it."""

    users: tuple[User, ...]
    cache: Stage | None
    why: str


class Assignment(NamedTuple):
    """The way of every group, and what all of them cost."""

    flops: float
    ways: tuple[tuple[Group, Way], ...]


def cheapest(groups: Sequence[Group], prices: Prices, share: float) -> Assignment:
    """-> the best without hidden states or with them, made once for all groups: about `share` of the rows."""
    making = max((group.making("hidden", prices.body, prices) for group in groups), default=prices.body)
    with_hidden = _assigned(groups, prices, ("none", "vector", "top_k", "hidden"), making * share)
    return min(without_hidden(groups, prices), with_hidden, key=lambda assignment: assignment.flops)


def without_hidden(groups: Sequence[Group], prices: Prices) -> Assignment:
    """-> the best where hidden states have no room; infinitely dear where a group can do with nothing else."""
    return _assigned(groups, prices, ("none", "vector", "top_k"))


def _assigned(groups: Iterable[Group], prices: Prices, ways: Sequence[Way], flops: float = 0.0) -> Assignment:
    """-> each group's cheapest way, of two that cost the same the plainer one; `flops`: what is paid once."""
    assigned = []
    for group in groups:
        possible = [way for way in group.ways if way in ways]
        if not possible:
            return Assignment(math.inf, ())
        way = min(possible, key=lambda way: group.flops(way, prices))
        flops += group.flops(way, prices)
        assigned.append((group, way))
    return Assignment(flops, tuple(assigned))
