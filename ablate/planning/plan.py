"""A plan: every row of every table under every seed, and the stages behind them, each once and each with a name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ablate.planning import caching_words
from ablate.planning.cache_forms import Choice, User
from ablate.stages.distill import DISTILL, teachers_of
from ablate.stages.generate import is_written
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import Row
from ablate.study.schema import Study


@dataclass(frozen=True)
class Cell:
    """One row of one ablation under one seed, and the stages behind its scores."""

    row: Row
    seed: int | None
    """None for a model that nothing was trained for."""
    evaluate: Stage
    trained: Stage | None
    """The fine-tuning or distillation that made the model; None for a baseline."""

    @property
    def name(self) -> str:
        """`ablation/row` or `ablation/row@seed`."""
        return f"{self.row.ablation}/{self.row.name}" + ("" if self.seed is None else f"@{self.seed}")


class Origin(NamedTuple):
    """What a study was read from."""

    file: Path
    overrides: tuple[str, ...] = ()
    """As given with --set."""


@dataclass(frozen=True)
class Plan:
    """What follows from a study: its cells, in the order of the tables, and the stages they need."""

    study: Study
    store: Store
    cells: tuple[Cell, ...]
    caches: tuple[Choice, ...] = ()
    """Of every teacher: whether it is asked once for all its distillations."""
    origin: Origin | None = None
    """None of a study that was read from no file."""
    unweighed: str | None = None
    """Why the disk has no say in what is kept, where it should."""

    @cached_property
    def cached(self) -> Mapping[str, Mapping[str, Stage]]:
        """Key of a distillation, done or not, that reads teachers' kept answers -> those that keep them."""
        aids: dict[str, dict[str, Stage]] = {}
        for user, cache in ((user, choice.cache) for choice in self.caches for user in choice.users):
            if cache:
                aids.setdefault(user.stage.key, {})[user.aid] = cache
        return aids

    def aids(self, stage: Stage) -> Mapping[str, Stage]:
        """-> what makes a stage cheaper, or did where it is done."""
        return self.cached.get(stage.key, {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how teachers are asked."""
        unweighed = [self.unweighed] if self.unweighed else []
        return (*caching_words.notes(self.caches, _asked), *unweighed)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every distinct stage once, each after its inputs."""
        return unique(cell.evaluate for cell in self.cells)

    @cached_property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages, and the kept answers of teachers that none of them needs any more."""
        kept = [choice.cache for choice in self.caches if choice.cache and self.store.done(choice.cache)]
        return tuple({stage.key: stage for stage in (*self.stages, *kept)}.values())

    @cached_property
    def needed_by(self) -> Mapping[str, tuple[Cell, ...]]:
        """Key of a stage -> the cells that need it."""
        cells_by_key: dict[str, list[Cell]] = {}
        for cell in self.cells:
            for key in {stage.key for stage in cell.evaluate.walk()}:
                cells_by_key.setdefault(key, []).append(cell)
        return {key: tuple(cells) for key, cells in cells_by_key.items()}

    @property
    def work(self) -> tuple[Stage, ...]:
        """The stages that cost: trainings and evaluations."""
        return tuple(stage for stage in self.stages if KINDS[stage.kind].is_work)

    @property
    def num_by_hand(self) -> int:
        """How many trainings and evaluations it would be if each ablation were run alone, as by hand."""
        return sum(len(plan.work) for plan in self.alone)

    @property
    def alone(self) -> tuple["Plan", ...]:
        """Each ablation as a plan of its own, which shares nothing with the others."""
        ablations = dict.fromkeys(cell.row.ablation for cell in self.cells)
        return tuple(replace(self, cells=self._cells_of(ablation)) for ablation in ablations)

    def _cells_of(self, ablation: str) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.row.ablation == ablation)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Of all tables, before seeds; without the replicates of controls."""
        of_study = (cell.row for cell in self.cells if not cell.row.is_replicate)
        return tuple({id(row): row for row in of_study}.values())

    @property
    def is_provisional(self) -> bool:
        """Whether some keys wait for rows that are not tokenised yet."""
        return any(stage.is_provisional for stage in self.stages)

    def label(self, stage: Stage) -> str:
        """What the stage is, for a reader: `distill kd_ratio/kd_ratio=0.25`, `fetch Qwen/Qwen2-0.5B-Instruct`."""
        return KINDS[stage.kind].label(stage, self._name(stage))

    def _name(self, stage: Stage) -> str:
        """-> of the model that a stage makes or asks."""
        user = self._first_users.get(stage.key)
        if user is None:
            return self._shortest_name(stage)
        return _teacher_name(user) if is_written(stage) else _asked(user)

    @cached_property
    def _first_users(self) -> Mapping[str, User]:
        """Key of what a teacher answers in advance -> the first distillation that reads it."""
        trained = (cell.trained for cell in reversed(self.cells) if cell.trained)
        read = ((stage.inputs.get("rows"), stage) for stage in trained)
        written = {rows.key: User(stage, "teacher") for rows, stage in read if rows and is_written(rows)}
        return written | {choice.cache.key: choice.users[0] for choice in reversed(self.caches) if choice.cache}

    def _shortest_name(self, stage: Stage) -> str:
        cells = self.needed_by[stage.key]
        own = [cell for cell in cells if stage in (cell.trained, cell.evaluate)]
        cell = (own or list(cells))[0]
        if cell.row.model == "distill" and own:
            return cell.name
        name = f"{cell.row.setting.pair}/{cell.row.model}" if own else self._tuned_for(stage, cell)
        seed = "" if cell.seed is None else f"@{cell.seed}"
        return f"{name}{seed}"

    @staticmethod
    def _tuned_for(stage: Stage, cell: Cell) -> str:
        """-> the teacher or student that a stage makes for a cell's distillation."""
        inputs = cell.trained.inputs if cell.trained else {}
        tuned = next(
            (
                name
                for name, one in inputs.items()
                if one is stage and name.endswith("_adapter") and name != "student_adapter"
            ),
            None,
        )
        if cell.trained and tuned and "teacher_2" in inputs:
            return _teacher_name(User(cell.trained, tuned.removesuffix("_adapter")))
        if tuned:
            return f"{cell.row.setting.teachers[0].pair}/teacher/finetuned"
        return f"{cell.row.setting.pair}/student/finetuned"


def _teacher_name(user: User) -> str:
    """-> `pair/teacher/finetuned`."""
    recipe = DISTILL.settings_of(user.stage).recipe
    number = teachers_of(user.stage).index(user.teacher)
    pair = recipe.teachers[number].pair if recipe.teachers else recipe.pair
    state = "finetuned" if f"{user.teacher}_adapter" in user.stage.inputs else "baseline"
    return f"{pair}/teacher/{state}"


def _asked(user: User) -> str:
    """-> whom a distillation asks, and about what, where that is not the data."""
    rows = user.stage.inputs.get("rows")
    about = " about its own answers" if rows and is_written(rows) else ""
    return _teacher_name(user) + about


def unique(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """-> the stages and all that they need, each once, each after its inputs."""
    by_key: dict[str, Stage] = {}
    for stage in stages:
        for part in stage.walk():
            by_key.setdefault(part.key, part)
    return tuple(by_key.values())
