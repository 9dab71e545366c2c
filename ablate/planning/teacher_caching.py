"""Whose answers are kept: each teacher of a plan, its distillations, and the cache that serves them where it fits."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from ablate.core.text import data_size
from ablate.core.values import Frozen
from ablate.data.steps import num_steps
from ablate.planning import caching_words
from ablate.planning.cache_forms import Choice, Group, Prices, User, Way, cheapest, without_hidden
from ablate.stages.distill import DISTILL, teachers_of
from ablate.stages.generate import trained_rows
from ablate.stages.row_uses import Use, share_read
from ablate.stages.teacher_cache import CacheSize, Form, TeacherCacheSettings, cache_size, token_bytes
from ablate.store.disk_speed import Speeds
from ablate.store.sizes import ModelSizes, RowsSizes, fetched_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.training_recipes import Distill

FREE = 1.2
"""Times the bytes of a cache that must be free on the disk."""
UNKNOWN = Prices(10, 1, 0.5)

Make: TypeAlias = Callable[[str, Frozen, Mapping[str, Stage]], Stage]


def choose(
    distillations: Iterable[Stage], store: Store, make: Make, speeds: Speeds | None = None
) -> tuple[Choice, ...]:
    """-> for every teacher, how its distillations ask it: the cheapest way that fits the disk.

    Vectors cost a distillation nothing, but serve one loss, temperature and frozen head; likeliest tokens one number of
    them and one temperature; hidden states serve all, and each pays the teacher's head again. Counts what is done as
    well, so that a study comes to the same results however often it is interrupted.

    `speeds`: by which writing and reading are weighed, the same at every call for a study; None: they cost nothing, as
    of a teacher whose answers had begun to be kept before they were known.
    """
    teachers: dict[tuple[Any, ...], list[User]] = {}
    for user in (User(stage, name) for stage in distillations for name in teachers_of(stage)):
        teachers.setdefault(_teacher(user), []).append(user)
    return tuple(
        choice for users in teachers.values() for choice in _weighed(tuple(users), store, speeds, _Caches(store, make))
    )


def _weighed(users: tuple[User, ...], store: Store, speeds: Speeds | None, caches: "_Caches") -> tuple[Choice, ...]:
    if speeds is None or speeds.begun:
        choices = tuple(_choices(_Teacher(users, store, None), caches))
        if speeds is None or any(choice.cache and choice.cache.key in speeds.begun for choice in choices):
            return choices
    return tuple(_choices(_Teacher(users, store, speeds), caches))


def _teacher(user: User) -> tuple[Any, ...]:
    inputs = (user.stage.inputs.get(name) for name in (user.teacher, f"{user.teacher}_adapter", "rows"))
    settings = DISTILL.settings_of(user.stage)
    return (*(part.identity if part else None for part in inputs), settings.dtype, settings.quantize.get(user.teacher))


def _recipe(user: User) -> Distill:
    return DISTILL.settings_of(user.stage).recipe


def _choices(teacher: "_Teacher", caches: "_Caches") -> Iterator[Choice]:
    ways = cheapest(teacher.groups, teacher.prices, teacher.share(teacher.users)).ways
    hidden, no_room = [group for group, way in ways if way == "hidden"], ""
    if hidden:
        users = tuple(user for group in hidden for user in group.users)
        choice = caches.choice("hidden", users, teacher.rows, f", because {caching_words.why_hidden(hidden)}")
        if choice.cache is None and not any(group.ways == ("hidden",) for group in hidden):
            ways, no_room = without_hidden(teacher.groups, teacher.prices).ways, choice.why
        else:
            yield choice
    for group, way in ways:
        if way in ("vector", "top_k"):
            yield caches.choice(way, group.users, teacher.rows)
        elif way == "none":
            yield Choice(group.users, None, _why_none(teacher, group, no_room if group in hidden else ""))


def _why_none(teacher: "_Teacher", group: Group, no_room: str) -> str:
    """-> why these have their teacher beside them; `no_room`: that the disk has none for their hidden states."""
    return no_room or teacher.why_slow(group) or caching_words.why_none(_recipe(group.users[0]))


@dataclass(frozen=True)
class _Teacher:
    """One teacher, asked about some rows in one dtype, and all the distillations that do."""

    users: tuple[User, ...]
    store: Store
    speeds: Speeds | None

    @cached_property
    def rows(self) -> RowsSizes | None:
        return trained_rows(self.store, self.users[0].stage.inputs["rows"])

    @cached_property
    def prices(self) -> Prices:
        rows, (teacher, student) = self.rows, self._sizes(self.users[0])
        if teacher is None or student is None or rows is None:
            return UNKNOWN
        tokens, scored = 2.0 * rows.tokens, 2.0 * rows.loss_tokens
        prices = Prices(tokens * teacher.num_body, scored * teacher.num_head, scored * student.num_head)
        if self.speeds is None:
            return prices
        return prices._replace(
            student=2 * (tokens * student.num_body + scored * student.num_head),  # there and back
            write=self.speeds.flops_per_s / self.speeds.write,
            read=self.speeds.flops_per_s / self.speeds.read,
        )

    def _sizes(self, user: User) -> tuple[ModelSizes | None, ModelSizes | None]:
        inputs = user.stage.inputs
        return fetched_sizes(self.store, inputs[user.teacher]), fetched_sizes(self.store, inputs["student"])

    def _kept(self, user: User) -> dict[Way, float]:
        """-> bytes of all rows, by form; nothing before models and rows are here."""
        rows, (teacher, student) = self.rows, self._sizes(user)
        if teacher is None or student is None or rows is None:
            return {}
        dtype, k = DISTILL.settings_of(user.stage).dtype, _recipe(user).teacher_top_k
        forms: tuple[Form, ...] = ("vector", "hidden", "top_k") if k else ("vector", "hidden")
        return {form: float(rows.loss_tokens * token_bytes(form, dtype, teacher, student, k)) for form in forms}

    def why_slow(self, group: Group) -> str | None:
        """-> that only the disk keeps a teacher from being asked once for these; None where it does not."""
        ways = cheapest(self.groups, self.prices.of_free_disk, self.share(self.users)).ways
        way = next(way for one, way in ways if one is group)
        if self.speeds is None or way == "none":
            return None
        making = group.making(way, self.prices.body, self.prices) * group.share if way == "hidden" else 0.0
        kept, live = group.flops(way, self.prices) + making, group.flops("none", self.prices)
        num_bytes = group.kept[way] * group.share
        return caching_words.why_slow(num_bytes, self.speeds, *(one / self.speeds.flops_per_s for one in (kept, live)))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        users_by_need: dict[tuple[Any, ...], list[User]] = {}
        for user in self.users:
            why = self._no_vector(user)
            users_by_need.setdefault((_need(user, why), why, _ways(_recipe(user), why)), []).append(user)
        return tuple(
            Group(tuple(users), ways, self.share(users), sum(map(self._passes, users)), why, self._kept(users[0]))
            for (_, why, ways), users in users_by_need.items()
        )

    def _no_vector(self, user: User) -> str | None:
        """-> why a distillation cannot learn from vectors, or None."""
        recipe, student = _recipe(user), fetched_sizes(self.store, user.stage.inputs["student"])
        if recipe.writes_in_training:
            return caching_words.WRITES
        if recipe.loss.crosses_tokenizers:
            return f"{recipe.loss.name} reads no kept answers"
        if recipe.features:
            return "features need the teacher's layers"
        if recipe.teachers:
            return "several teachers' means are taken of all their logits"
        if recipe.teacher_top_k:
            return "the likeliest tokens alone are learnt from"
        if recipe.loss.needs != "vector":
            return f"{recipe.loss.name} needs all of the teacher's logits"
        if student and student.is_capped:
            return "the student caps its logits"
        if recipe.lora is not None and recipe.lora.modules_to_save:
            return "lora.modules_to_save may train the student's head"
        return "lora: none trains the student's head" if recipe.lora is None else None

    def share(self, users: Sequence[User]) -> float:
        """-> of the rows that a cache for these distillations would hold."""
        return share_read(_reads(users, self.rows), self.rows) if self.rows else 1.0

    def _passes(self, user: User) -> float:
        """-> how often a distillation goes over the rows."""
        recipe, rows = _recipe(user), self.rows
        if rows is None or rows.rows == 0:
            return float(recipe.epochs or 1)
        steps = num_steps(rows.rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
        return steps * recipe.batch_size / rows.rows


def _need(user: User, no_vector: str | None) -> tuple[Any, ...]:
    """-> what distillations have in common that one cache of less than hidden states serves."""
    recipe = _recipe(user)
    if recipe.teacher_top_k:
        return (recipe.teacher_top_k, recipe.temperature)
    return (user.stage.inputs["student"].identity, recipe.temperature) if no_vector is None else ()


def _ways(recipe: Distill, no_vector: str | None) -> tuple[Way, ...]:
    if recipe.writes_in_training or recipe.loss.crosses_tokenizers or recipe.features:
        return ("none",)
    asked_for = recipe.teacher_cache
    if recipe.teacher_top_k and asked_for not in ("none", "hidden"):
        return ("top_k",) if asked_for == "top_k" else ("none", "top_k", "hidden")
    if asked_for in ("none", "hidden"):
        return ("none",) if asked_for == "none" else ("hidden",)
    if asked_for == "vector" and no_vector is None:
        return ("vector",)
    return ("none", "hidden") if no_vector else ("none", "vector", "hidden")


def _reads(users: Sequence[User], rows: RowsSizes | None) -> tuple[Use, ...] | None:
    """-> which rows some distillations read; None: all, or as good as all."""
    uses = {_use(user) for user in users}
    if None in uses or (rows and sum(use.num_steps * use.batch_size for use in uses if use) >= rows.rows):
        return None
    return tuple(sorted((use for use in uses if use), key=lambda use: use.model_dump_json()))


def _use(user: User) -> Use | None:
    settings, recipe = DISTILL.settings_of(user.stage), _recipe(user)
    if recipe.max_steps is None:
        return None
    return Use(seed=settings.seed, batch_size=recipe.batch_size, num_steps=recipe.max_steps, drop_last=recipe.drop_last)


@dataclass(frozen=True)
class _Caches:
    """Makes the stages that keep answers, where the disk has room for what they make."""

    store: Store
    make: Make

    def choice(self, form: Form, users: tuple[User, ...], rows: RowsSizes | None, because: str = "") -> Choice:
        cache = self._stage(form, users, rows)
        size = cache_size(cache, self.store)
        if size is None:
            return Choice(users, cache, f"kept until the last of them is done{because}")
        if why := self._no_room(cache, size):
            return Choice(users, None, why)
        return Choice(users, cache, f"{data_size(size.num_bytes)}, {size.token} a token{because}")

    def _stage(self, form: Form, users: Sequence[User], rows: RowsSizes | None) -> Stage:
        (stage, name), recipe = users[0], _recipe(users[0])
        names = {"teacher": name, "teacher_adapter": f"{name}_adapter", "rows": "rows"}
        names |= {"student": "student"} if form == "vector" else {}
        settings = TeacherCacheSettings(
            form=form,
            dtype=DISTILL.settings_of(stage).dtype,
            temperature=1.0 if form == "hidden" else recipe.temperature,
            quantize=DISTILL.settings_of(stage).quantize.get(name),
            k=recipe.teacher_top_k if form == "top_k" else None,
            reads=_reads(users, rows),
            cards=recipe.cards,
        )
        there = {role: stage.inputs[name] for role, name in names.items() if name in stage.inputs}
        return self.make("teacher_cache", settings, there)

    def _no_room(self, cache: Stage, size: CacheSize) -> str | None:
        """-> why the disk has no room for it, or None; what was begun is gone on with."""
        folder = next(path for path in (self.store.root, *self.store.root.parents) if path.exists())
        free = shutil.disk_usage(folder).free
        if free >= FREE * size.num_bytes or self.store.is_begun(cache):
            return None
        return (
            f"its answers would take {data_size(size.num_bytes)} and {data_size(free)} are free under {self.store.root}"
        )
