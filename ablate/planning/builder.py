"""A study's rows become stages: each distinct piece of work once, with the key that says what it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from ablate.planning.cache_forms import Choice
from ablate.planning.fetches import Fetches
from ablate.planning.plan import Cell, Plan
from ablate.planning.stage_pool import StagePool
from ablate.planning.teacher_caching import choose
from ablate.stages.distill import DistillSettings
from ablate.stages.evaluate import EvaluateSettings
from ablate.stages.finetune import FinetuneSettings
from ablate.stages.generate import GenerateSettings, read_in_part
from ablate.stages.rows import RowsSettings
from ablate.store.hub_lock import Pins
from ablate.store.sizes import num_rows
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study import catalog
from ablate.study.cells import Row
from ablate.study.resolve import Setting, Teacher, distilled_from
from ablate.study.schema import Study, TeacherOrStudent
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Finetune

UNTRAINED: tuple[int | None, ...] = (None,)
"""The seeds of a row that is a model as it was fetched."""


def make_plan(study: Study, rows: Sequence[Row], pins: Pins, store: Store) -> Plan:
    """-> the plan of a study; `rows`: of all its tables.

    Reads what is committed (rows of data are named by their content), writes nothing.
    """
    builder = _Builder(study, rows, pins, store)
    caches = builder.caches()
    return Plan(study, store, tuple(builder.cells()), caches)


class _Builder:
    """Makes the stages behind every row and seed."""

    def __init__(self, study: Study, rows: Sequence[Row], pins: Pins, store: Store) -> None:
        self._study = study
        self._rows_of_tables = rows
        self._store = store
        self._pins = pins
        self._pool = StagePool(store, pins)
        self._fetches = Fetches(self._pool, pins)
        self._distillations: dict[tuple[int, int | None], str] = {}

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

    def caches(self) -> tuple[Choice, ...]:
        """Chooses which teachers are asked once; to be called before the cells are made, which then wait for it."""
        wanted = [self._distillation(row, seed) for row, seed in self._seeded if row.model == "distill"]
        choices = choose(
            {stage.key: stage for stage in wanted}.values(), self._store, self._pool.make, self._pins.speeds
        )
        for choice in choices:
            if choice.cache:
                for user in choice.users:
                    self._pool.aid(user.stage, user.aid, choice.cache)
        return choices

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
            trained = self._distillation(row, seed)
            below = trained.inputs.get("student_adapter")
            return Cell(row, seed, self._evaluation(setting, setting.student, below, trained), trained)
        ref = setting.teacher if role == "teacher" else setting.student
        has_own_rows = role == "teacher" and setting.pair in self._with_own_tokens
        rows = self._rows(setting, setting.teacher if has_own_rows else setting.student)
        tuned = None if seed is None else self._finetuning(setting, role, seed, rows)
        return Cell(row, seed, self._evaluation(setting, ref, tuned), tuned)

    @cached_property
    def _with_own_tokens(self) -> frozenset[str]:
        """Pairs of which every distillation lets the teacher read in its own tokens: so it is tuned."""
        distilled = [row.setting for row in self._rows_of_tables if row.model == "distill"]
        others = {setting.pair for setting in distilled if not setting.distill.loss.crosses_tokenizers}
        return frozenset(setting.pair for setting in distilled) - others

    def _finetuning(self, setting: Setting, role: str, seed: int, rows: Stage) -> Stage:
        ref = setting.teacher if role == "teacher" else setting.student
        recipe = setting.finetune_teacher if role == "teacher" else setting.finetune_student
        return self._tuned(setting, ref, recipe, seed, rows)

    def _tuned(self, setting: Setting, ref: TeacherOrStudent, recipe: Finetune, seed: int, rows: Stage) -> Stage:
        settings = FinetuneSettings(recipe=recipe, dtype=setting.dtype, seed=seed, quantize=ref.quantize)
        inputs = {"model": self._fetches.model(ref), "rows": rows}
        return self._pool.make("finetune", settings, inputs)

    def _distillation(self, row: Row, seed: int | None) -> Stage:
        """-> a row's distillation, each planned once: it is asked for before its cache is chosen and after."""
        asked = id(row.setting), seed
        if asked not in self._distillations:
            self._distillations[asked] = self._new_distillation(row.setting, seed or 0).key
        return self._pool[self._distillations[asked]]

    def _new_distillation(self, setting: Setting, seed: int) -> Stage:
        teachers = sorted(((one, *self._teacher(setting, one)) for one in setting.teachers), key=_identities)
        recipe = distilled_from(setting.distill, [one for one, _, _ in teachers])
        named = dict(zip(teacher_inputs(len(teachers)), teachers, strict=True))
        rows = self._rows(setting, setting.student)
        inputs = {name: model for name, (_, model, _) in named.items()}
        inputs |= {"student": self._fetches.model(setting.student), "rows": rows}
        if recipe.loss.crosses_tokenizers:
            inputs["teacher_rows"] = self._rows(setting, setting.teachers[0].model)
        inputs |= {f"{name}_adapter": adapter for name, (_, _, adapter) in named.items() if adapter}
        if recipe.student == "finetuned":
            inputs["student_adapter"] = self._finetuning(setting, "student", seed, rows)
        if recipe.answers == "teacher":
            inputs["rows"] = self._answered(setting, seed, inputs, rows)
        models = {name: one.model for name, (one, _, _) in named.items()} | {"student": setting.student}
        quantize = {name: model.quantize for name, model in models.items() if model.quantize}
        settings = DistillSettings(recipe=recipe, dtype=setting.dtype, seed=seed, quantize=quantize)
        return self._pool.make("distill", settings, inputs)

    def _teacher(self, setting: Setting, teacher: Teacher) -> tuple[Stage, Stage | None]:
        """-> its model, and what tuned it on the rows that it is asked about, with the study's first seed."""
        model = self._fetches.model(teacher.model)
        if teacher.finetune is None:
            return model, None
        across = setting.distill.loss.crosses_tokenizers
        rows = self._rows(setting, teacher.model if across else setting.student)
        return model, self._tuned(setting, teacher.model, teacher.finetune, self._study.seeds[0], rows)

    def _answered(self, setting: Setting, seed: int, inputs: Mapping[str, Stage], rows: Stage) -> Stage:
        """-> the rows with the answers of a distillation's teacher, written under the first seed for those of all."""
        recipe = setting.distill
        settings = GenerateSettings(
            sampling=recipe.sampling,
            dtype=setting.dtype,
            seed=self._study.seeds[0] if recipe.sampling.temperature else 0,  # the likeliest token is not drawn
            quantize=setting.teachers[0].model.quantize,
            reads=read_in_part(recipe, seed, num_rows(self._store, rows, self._pins.num_rows)),
            cards=recipe.cards,
        )
        teacher = {name: inputs[name] for name in ("teacher", "teacher_adapter") if name in inputs}
        return self._pool.make("generate", settings, teacher | {"rows": rows})

    def _evaluation(self, setting: Setting, ref: TeacherOrStudent, *adapters: Stage | None) -> Stage:
        recipe = setting.evaluate.model_copy(update={"dtype": setting.evaluate.dtype or setting.dtype})
        inputs = {"model": self._fetches.model(ref)}
        inputs |= {f"adapter_{i}": stage for i, stage in enumerate(filter(None, adapters))}
        inputs |= self._fetches.questions(setting)
        settings = EvaluateSettings(recipe=recipe, lm_eval=catalog.lm_eval_version(), quantize=ref.quantize)
        return self._pool.make("evaluate", settings, inputs)

    def _rows(self, setting: Setting, reader: TeacherOrStudent) -> Stage:
        """-> the data as tokens: the student's, or those of a teacher that reads in its own."""
        whole = self._fetches.whole(reader)  # its tokenizer alone: a cut student's is the same
        inputs = {"student": whole, "data": self._fetches.dataset(setting.data)}
        return self._pool.make("rows", RowsSettings(data=setting.data), inputs)


def _identities(teacher: tuple[Teacher, Stage, Stage | None]) -> tuple[str, str, str]:
    """By these several teachers are put in order, so that the order in which a file names them is in no key."""
    one, model, adapter = teacher
    return model.identity, adapter.identity if adapter else "", one.model.quantize or ""
