"""Whose answers are kept, and how: which teachers are asked once for several distillations, and why others are not."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.core.text import data_size
from ablate.core.values import Frozen
from ablate.data.steps import num_steps
from ablate.planning.cache_sizes import reads, settings_of, share_read, sizes
from ablate.stages.teacher_cache import TeacherCacheSettings
from ablate.store.sizes import RowsSizes, fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.schema import Distill

FREE = 1.2
"""Times the bytes of a cache that must be free on the disk."""

Make: TypeAlias = Callable[[str, Frozen, Mapping[str, Stage]], Stage]
Way: TypeAlias = Literal["vector", "hidden", "none"]


class Choice(NamedTuple):
    """One teacher, some distillations that ask it the same, and what is done about it."""

    users: tuple[Stage, ...]
    cache: Stage | None
    why: str


class Prices(NamedTuple):
    """FLOPs of asking a teacher about every row once (or in proportion, where models are not here yet)."""

    body: float
    head: float
    vector: float
    """To make vectors of its logits: as much as the student's head."""


UNKNOWN = Prices(10, 1, 0.5)


class Likes(NamedTuple):
    """Distillations that a single cache of vectors would serve, or none would."""

    users: tuple[Stage, ...]
    ways: tuple[Way, ...]
    """Those possible."""
    why: str | None
    """Why vectors cannot serve, or should not."""


def choose(distillations: Iterable[Stage], store: Store, make: Make) -> tuple[Choice, ...]:
    """-> for every teacher, how its distillations ask it: the cheapest way that fits the disk.

    Vectors cost a distillation nothing, but serve one loss, temperature and frozen head; hidden states serve all, and
    each pays the teacher's head again. Counts what is done as well, so that a study comes to the same results however
    often it is interrupted.
    """
    teachers: dict[tuple[Any, ...], list[Stage]] = {}
    for stage in distillations:
        teachers.setdefault(_teacher(stage), []).append(stage)
    return tuple(choice for users in teachers.values() for choice in _Teacher(tuple(users), store, make).choices())


def _teacher(stage: Stage) -> tuple[Any, ...]:
    inputs = (stage.inputs.get(name) for name in ("teacher", "teacher_adapter", "rows"))
    return (*(of.identity if of else None for of in inputs), settings_of(stage).dtype)


def _recipe(stage: Stage) -> Distill:
    recipe: Distill = settings_of(stage).recipe
    return recipe


@dataclass(frozen=True)
class _Teacher:
    """One teacher, asked about some rows in one dtype, and all the distillations that do."""

    users: tuple[Stage, ...]
    store: Store
    make: Make

    def choices(self) -> Iterator[Choice]:
        """The best with hidden states, or without them, each set of likes on its own."""
        chosen = min(self._assigned(has_hidden=False), self._assigned(has_hidden=True), key=lambda found: found[0])[1]
        hidden = [likes for likes, way in chosen if way == "hidden"]
        if hidden:
            choice = self._kept("hidden", Likes(tuple(u for likes in hidden for u in likes.users), (), _why(hidden)))
            if choice.cache is None and not self._is_said(hidden):  # the disk has no room
                chosen = self._assigned(has_hidden=False)[1]
            else:
                yield choice
        for likes, way in chosen:
            if way == "vector":
                yield self._kept("vector", likes)
            elif way == "none":
                yield Choice(likes.users, None, self._why_none(likes))

    @staticmethod
    def _is_said(hidden: Sequence[Likes]) -> bool:
        return any(likes.ways == ("hidden",) for likes in hidden)

    def _assigned(self, *, has_hidden: bool) -> tuple[float, list[tuple[Likes, Way]]]:
        """-> FLOPs, and the cheapest way of each; of two that cost the same the plainer one."""
        total, chosen = self._prices.body * self._share(self.users) if has_hidden else 0.0, []
        for likes in self._likes:
            prices = {way: self._price(likes, way) for way in likes.ways if has_hidden or way != "hidden"}
            if not prices:
                return math.inf, []
            way = min(prices, key=lambda way: prices[way])
            total += prices[way]
            chosen.append((likes, way))
        return total, chosen

    def _price(self, likes: Likes, way: Way) -> float:
        """-> FLOPs; of hidden states without those of making them, which all share."""
        prices = self._prices
        if way == "vector":
            return self._share(likes.users) * (prices.body + prices.head + prices.vector)
        return sum(map(self._passes, likes.users)) * (prices.head + (prices.body if way == "none" else 0))

    def _share(self, users: Sequence[Stage]) -> float:
        """-> of the rows that a cache for these distillations would hold."""
        return share_read(reads(users, self._rows), self._rows) if self._rows else 1.0

    @cached_property
    def _likes(self) -> list[Likes]:
        found: dict[tuple[Any, ...], list[Stage]] = {}
        for stage in self.users:
            why = self._no_vector(stage)
            like = (stage.inputs["student"].identity, _recipe(stage).temperature) if why is None else why
            found.setdefault((like, self._ways(stage, why)), []).append(stage)
        return [Likes(tuple(users), ways, self._no_vector(users[0])) for (_, ways), users in found.items()]

    @staticmethod
    def _ways(stage: Stage, why: str | None) -> tuple[Way, ...]:
        said = _recipe(stage).teacher_cache
        if said in ("none", "hidden"):
            return ("none",) if said == "none" else ("hidden",)
        if said == "vector" and why is None:
            return ("vector",)
        return ("none", "hidden") if why else ("none", "vector", "hidden")

    def _no_vector(self, stage: Stage) -> str | None:
        """-> why a distillation cannot learn from vectors, or None."""
        recipe, student = _recipe(stage), fetched_sizes(self.store, stage.inputs["student"])
        if recipe.loss.needs != "vector":
            return f"{recipe.loss.name} needs all of the teacher's logits"
        if student and student.is_capped:
            return "the student caps its logits"
        return "lora: none trains the student's head" if recipe.lora is None else None

    def _why_none(self, likes: Likes) -> str:
        said = _recipe(likes.users[0]).teacher_cache
        return f"the study says teacher_cache: {said}" if said == "none" else "one distillation alone asks it, once"

    def _passes(self, stage: Stage) -> float:
        """-> how often a distillation goes over the rows."""
        recipe, rows = _recipe(stage), self._rows
        if rows is None or rows.rows == 0:
            return float(recipe.epochs or 1)
        steps = num_steps(rows.rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
        return steps * recipe.batch_size / rows.rows

    @cached_property
    def _rows(self) -> RowsSizes | None:
        return rows_sizes(self.store, self.users[0].inputs["rows"])

    @cached_property
    def _prices(self) -> Prices:
        teacher, student = (fetched_sizes(self.store, self.users[0].inputs[name]) for name in ("teacher", "student"))
        rows = self._rows
        if teacher is None or student is None or rows is None:
            return UNKNOWN
        scored = 2.0 * rows.loss_tokens
        return Prices(2.0 * rows.tokens * teacher.num_body, scored * teacher.num_head, scored * student.num_head)

    def _kept(self, form: Literal["vector", "hidden"], likes: Likes) -> Choice:
        cache = self._cache(form, likes.users)
        room, why = self._room(cache)
        because = f", because {likes.why}" if room and form == "hidden" and likes.why else ""
        return Choice(likes.users, cache if room else None, why + because)

    def _cache(self, form: Literal["vector", "hidden"], users: Sequence[Stage]) -> Stage:
        names = ("teacher", "teacher_adapter", "rows", *(("student",) if form == "vector" else ()))
        settings = TeacherCacheSettings(
            form=form,
            dtype=settings_of(users[0]).dtype,
            temperature=_recipe(users[0]).temperature if form == "vector" else 1.0,
            reads=reads(users, self._rows),
        )
        return self.make("teacher_cache", settings, {n: users[0].inputs[n] for n in names if n in users[0].inputs})

    def _room(self, cache: Stage) -> tuple[bool, str]:
        """-> whether the disk has room for it; what was begun is gone on with."""
        found = sizes(cache, self.store)
        if found is None:
            return True, "kept until the last of them is done"
        size = found.total
        folder = next(path for path in (self.store.root, *self.store.root.parents) if path.exists())
        free = shutil.disk_usage(folder).free
        if free < FREE * size and not self.store.attempts(cache.key12):
            return (
                False,
                f"its answers would take {data_size(size)} and {data_size(free)} are free under {self.store.root}",
            )
        return True, f"{data_size(size)}, {found.what} a token"


def _why(hidden: Sequence[Likes]) -> str:
    """-> why some distillations read hidden states: what keeps one from vectors, or that vectors would be several."""
    reasons = [likes.why for likes in hidden if likes.why]
    if reasons:
        return reasons[0]
    return "the study says teacher_cache: hidden" if hidden[0].ways == ("hidden",) else "their vectors would differ"


def notes(choices: Iterable[Choice], name_of: Callable[[Stage], str]) -> Iterator[str]:
    """What a reader of the plan is told, of each teacher that several distillations ask, or that is to be kept."""
    for choice in choices:
        many = f"{len(choice.users)} distillations" if len(choice.users) > 1 else "one distillation"
        if choice.cache:
            yield f"{name_of(choice.users[0])} is asked once for {many}: {choice.why}"
        elif len(choice.users) > 1:
            yield f"{name_of(choice.users[0])} runs beside {many}: {choice.why}"
