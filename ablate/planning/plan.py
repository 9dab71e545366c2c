"""A study becomes stages: each distinct piece of work once, with the key that says what it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.core.hub import Repo
from ablate.core.values import Frozen
from ablate.planning import teacher_caching
from ablate.stages.distill import DistillSettings
from ablate.stages.evaluate import EvaluateSettings
from ablate.stages.fetch import FetchSettings, local_digest
from ablate.stages.finetune import FinetuneSettings
from ablate.stages.rows import RowsSettings
from ablate.stages.teacher_cache import TeacherCacheSettings
from ablate.store.hub_lock import Pins
from ablate.store.job import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study import catalog
from ablate.study.cells import Row, rows
from ablate.study.resolve import Setting
from ablate.study.schema import Study, TeacherOrStudent
from ablate.study.sources import is_local, task_sources

UNTRAINED: tuple[int | None, ...] = (None,)
"""The seeds of a row that is a model as it was fetched."""


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


@dataclass(frozen=True)
class Plan:
    """What follows from a study: its cells, in the order of the tables, and the stages they need."""

    study: Study
    store: Store
    cells: tuple[Cell, ...]
    caches: tuple[teacher_caching.Choice, ...] = ()
    """Of every teacher: whether it is asked once for all its distillations."""

    @cached_property
    def cached(self) -> Mapping[str, str]:
        """Key of a distillation, done or not, that reads a teacher's kept answers -> their form."""
        return {
            stage.key: choice.cache.settings.form  # type: ignore[attr-defined]
            for choice in self.caches
            if choice.cache
            for stage in choice.users
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how teachers are asked."""
        return tuple(teacher_caching.notes(self.caches, self._teacher_of))

    def _teacher_of(self, distillation: Stage) -> str:
        cell = next(cell for cell in self.cells if cell.trained and cell.trained.key == distillation.key)
        return f"{cell.row.setting.pair}/{_teacher(distillation)}"

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every distinct stage once, each after its inputs."""
        return unique(cell.evaluate for cell in self.cells)

    @cached_property
    def made(self) -> tuple[Stage, ...]:
        """The stages, and the kept answers of teachers that none of them needs any more."""
        kept = [choice.cache for choice in self.caches if choice.cache and self.store.done(choice.cache)]
        return tuple({stage.key: stage for stage in (*self.stages, *kept)}.values())

    @cached_property
    def needed_by(self) -> Mapping[str, tuple[Cell, ...]]:
        """Key of a stage -> the cells that need it."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            for key in {stage.key for stage in cell.evaluate.walk()}:
                found.setdefault(key, []).append(cell)
        return {key: tuple(cells) for key, cells in found.items()}

    @property
    def work(self) -> tuple[Stage, ...]:
        """The stages that cost: trainings and evaluations."""
        return tuple(stage for stage in self.stages if not KINDS[stage.kind].is_light and stage.kind != "teacher_cache")

    @property
    def num_by_hand(self) -> int:
        """How many trainings and evaluations it would be if each ablation were run alone, as by hand."""
        return sum(len(one.work) for one in self.alone)

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
        settings = stage.settings
        if isinstance(settings, FetchSettings):
            return f"fetch {settings.repo or Path(settings.path or '').name}"
        if isinstance(settings, RowsSettings):
            return f"rows {Path(settings.data.source).name}"
        if isinstance(settings, TeacherCacheSettings):
            user = next(choice.users[0] for choice in self.caches if choice.cache and choice.cache.key == stage.key)
            heat = "" if settings.temperature == 1.0 else f", temperature {settings.temperature:g}"
            return f"teacher_cache {self._teacher_of(user)}, {settings.form}{heat}"
        return f"{stage.kind} {self._shortest_name(stage)}"

    def _shortest_name(self, stage: Stage) -> str:
        cells = self.needed_by[stage.key]
        own = [cell for cell in cells if stage in (cell.trained, cell.evaluate)]
        cell = (own or list(cells))[0]
        if cell.row.model == "distill" and own:
            return cell.name
        role = cell.row.model if own else self._role(stage, cell)
        seed = "" if cell.seed is None else f"@{cell.seed}"
        return f"{cell.row.setting.pair}/{role}{seed}"

    @staticmethod
    def _role(stage: Stage, cell: Cell) -> str:
        trained = cell.trained
        is_teacher = trained is not None and trained.inputs.get("teacher_adapter") is stage
        return "teacher/finetuned" if is_teacher else "student/finetuned"


def _teacher(stage: Stage) -> str:
    return "teacher/finetuned" if "teacher_adapter" in stage.inputs else "teacher/baseline"


def make_plan(study: Study, store: Store, pins: Pins, made: Sequence[Row] | None = None) -> Plan:
    """-> the plan of a study; `made`: its rows, where they are known already.

    Reads what is committed (rows are named by their content), writes nothing. A repository that is not pinned
    gives a fetch stage without a revision, whose attempt says why.
    """
    builder = _Builder(study, made or rows(study), store, pins)
    caches = builder.caches()
    return Plan(study, store, tuple(builder.cells()), caches)


class _Builder:
    """Makes stages, each once."""

    def __init__(self, study: Study, rows: Sequence[Row], store: Store, pins: Pins) -> None:
        self._study = study
        self._rows_of_tables = rows
        self._store = store
        self._pins = pins
        self._made: dict[str, Stage] = {}
        self._fetched: dict[tuple[Any, ...], Stage] = {}
        self._asked: dict[tuple[int, int | None], str] = {}

    def cells(self) -> Iterator[Cell]:
        for row, seed in self._seeded:
            yield self._cell(row, seed)

    @cached_property
    def _seeded(self) -> tuple[tuple[Row, int | None], ...]:
        return tuple(self._each_seeded())

    def _each_seeded(self) -> Iterator[tuple[Row, int | None]]:
        for row in self._rows_of_tables:
            for seed in self._seeds(row):
                yield row, seed
            if row.name == row.control and self._seeds(row) != UNTRAINED:
                yield from self._replicates(row)

    def caches(self) -> tuple[teacher_caching.Choice, ...]:
        """Chooses which teachers are asked once; to be called before the cells are made, which then wait for it."""
        wanted = [self._trained(row, seed) for row, seed in self._seeded if row.model == "distill"]
        choices = teacher_caching.choose({stage.key: stage for stage in wanted}.values(), self._store, self._make)
        for choice in choices:
            if choice.cache:
                self._aid(choice.users, choice.cache)
        return choices

    def _aid(self, users: Iterable[Stage], cache: Stage) -> None:
        """What is done already needs no aid any more, and the cache is not made for it."""
        for stage in users:
            if stage.is_provisional or not self._store.done(stage):
                self._made[stage.key] = replace(stage, aids={"teacher_cache": cache})

    def _seeds(self, row: Row) -> tuple[int | None, ...]:
        if row.model in ("teacher/baseline", "student/baseline"):
            return UNTRAINED
        return self._study.seeds[:1] if row.model == "teacher/finetuned" else self._study.seeds

    def _replicates(self, row: Row) -> Iterator[tuple[Row, int]]:
        again = replace(row, name=f"{row.name}/replicate", label=f"{row.label}, another seed")
        for number in range(self._study.report.replicate):
            yield again, max(self._study.seeds) + 1 + number

    def _cell(self, row: Row, seed: int | None) -> Cell:
        setting = row.setting
        role = row.model.split("/")[0]
        if row.model == "distill":
            trained = self._trained(row, seed)
            below = trained.inputs.get("student_adapter")
            return Cell(row, seed, self._evaluated(setting, setting.student, below, trained), trained)
        ref = setting.teacher if role == "teacher" else setting.student
        tuned = None if seed is None else self._finetuned(setting, role, seed)
        return Cell(row, seed, self._evaluated(setting, ref, tuned), tuned)

    def _finetuned(self, setting: Setting, role: str, seed: int) -> Stage:
        ref = setting.teacher if role == "teacher" else setting.student
        recipe = setting.finetune_teacher if role == "teacher" else setting.finetune_student
        settings = FinetuneSettings(recipe=recipe, dtype=setting.dtype, seed=seed)
        return self._make("finetune", settings, {"model": self._model(ref), "rows": self._rows(setting)})

    def _trained(self, row: Row, seed: int | None) -> Stage:
        """-> a row's distillation, each planned once: it is asked for before its cache is chosen and after."""
        asked = id(row.setting), seed
        if asked not in self._asked:
            self._asked[asked] = self._distilled(row.setting, seed or 0).key
        return self._made[self._asked[asked]]

    def _distilled(self, setting: Setting, seed: int) -> Stage:
        recipe = setting.distill
        inputs = {
            "teacher": self._model(setting.teacher),
            "student": self._model(setting.student),
            "rows": self._rows(setting),
        }
        if recipe.teacher == "finetuned":
            inputs["teacher_adapter"] = self._finetuned(setting, "teacher", self._study.seeds[0])
        if recipe.student == "finetuned":
            inputs["student_adapter"] = self._finetuned(setting, "student", seed)
        return self._make("distill", DistillSettings(recipe=recipe, dtype=setting.dtype, seed=seed), inputs)

    def _evaluated(self, setting: Setting, ref: TeacherOrStudent, *adapters: Stage | None) -> Stage:
        recipe = setting.evaluate.model_copy(update={"dtype": setting.evaluate.dtype or setting.dtype})
        inputs = {"model": self._model(ref)}
        inputs |= {f"adapter_{i}": stage for i, stage in enumerate(filter(None, adapters))}
        for number, source in enumerate(task_sources(setting)):
            inputs[f"data_{number}"] = self._hub("tasks", source.path, None, source.config)
        if recipe.include_path:
            inputs["include"] = self._local("tasks", recipe.include_path)
        return self._make("evaluate", EvaluateSettings(recipe=recipe, lm_eval=catalog.lm_eval_version()), inputs)

    def _rows(self, setting: Setting) -> Stage:
        data = setting.data
        source = (
            self._local("dataset", data.source)
            if is_local(data.source)
            else self._hub("dataset", data.source, data.revision, data.config)
        )
        return self._make("rows", RowsSettings(data=data), {"student": self._model(setting.student), "data": source})

    def _model(self, ref: TeacherOrStudent) -> Stage:
        if is_local(ref.model):
            return self._local("model", ref.model, ref.trust_remote_code)
        return self._hub("model", ref.model, ref.revision, None, ref.trust_remote_code)

    def _hub(self, repo_type: str, repo: str, revision: str | None, config: str | None, trusted: bool = False) -> Stage:
        sha = self._pins.revisions.get(Repo("model" if repo_type == "model" else "dataset", repo, revision), revision)
        return self._fetch(
            source="hub", repo_type=repo_type, repo=repo, revision=sha, config=config, trust_remote_code=trusted
        )

    def _local(self, repo_type: str, path: str, trusted: bool = False) -> Stage:
        return self._fetch(source="local", repo_type=repo_type, path=path, trust_remote_code=trusted)

    def _fetch(self, **fields: Any) -> Stage:
        """Each source is asked for once a plan: a large local folder takes long to digest."""
        asked = tuple(fields.items())
        if asked not in self._fetched:
            sha256 = self._digest(fields["path"]) if fields["source"] == "local" else None
            self._fetched[asked] = self._make("fetch", FetchSettings(**fields, sha256=sha256), {})
        return self._fetched[asked]

    def _digest(self, path: str) -> str:
        return self._pins.digests.get(path) or local_digest(Path(path))

    def _make(self, kind: str, settings: Frozen, inputs: Mapping[str, Stage]) -> Stage:
        is_provisional = any(
            stage.is_provisional or (stage.kind == "rows" and stage.content is None) for stage in inputs.values()
        )
        stage = Stage(kind, KINDS[kind].version, settings, inputs, is_provisional=is_provisional)
        if stage.key not in self._made:
            content = self._content(stage) if kind == "rows" and not is_provisional else None
            self._made[stage.key] = replace(stage, content=content)
        return self._made[stage.key]

    def _content(self, rows: Stage) -> str | None:
        return self._store.content(rows) or self._pins.contents.get(rows.key)


def unique(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """-> the stages and all that they need, each once, each after its inputs."""
    found: dict[str, Stage] = {}
    for stage in stages:
        for part in stage.walk():
            found.setdefault(part.key, part)
    return tuple(found.values())
