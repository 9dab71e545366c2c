"""What a stage costs: tokens, FLOPs, disk, memory and time, from the models' own files and what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ablate.data.steps import num_steps
from ablate.machine import gpus
from ablate.machine.slots import Slot
from ablate.planning import cache_sizes, memory_estimate
from ablate.planning.plan import Plan
from ablate.planning.timing import Timing, measured_s
from ablate.store.sizes import ModelSizes, RowsSizes, fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.study.schema import Train

CPU_FLOPS = 4e10
"""Of one thread, a guess that the first measured stage replaces."""
START_S = 3.0
"""To load a model and build a task, whatever its size."""

# questions, tokens a question forwards with lm-eval's own model class (counted on the tasks' validation sets)
TASKS = {
    "truthfulqa_mc2": (817, 1657),
    "hellaswag": (10042, 371),
    "commonsense_qa": (1221, 52),
}
UNKNOWN_TASK = (1000, 400)


class Cost(NamedTuple):
    """An estimate; None where the model or the rows are not fetched yet."""

    tokens: int | None = None
    flops: float | None = None
    disk_bytes: int | None = None
    held: memory_estimate.Held | None = None
    seconds: float = START_S


class Device(NamedTuple):
    """What a plan's stages are to run on."""

    model: str | None = None
    """Of the card or the processor, as a result's provenance says; None: whatever."""
    flops_per_s: float = CPU_FLOPS


ANY = Device()
USUAL = Device("a usual card", gpus.flops_per_s("a usual card"))
"""Where there is none to name; nothing was ever measured on it."""


def device_of(slots: Iterable[Slot]) -> Device:
    """-> what heavy stages run on in these slots."""
    slot = next((slot for slot in slots if "heavy" in slot.takes), None)
    if slot is None:
        return ANY
    return Device(slot.model, gpus.flops_per_s(slot.model or "") if slot.device == "cuda" else CPU_FLOPS)


class _Beside(NamedTuple):
    """Weights of a teacher that run beside a student."""

    loaded: int
    body: int
    head: int


@dataclass(frozen=True)
class CostModel:
    """Costs of one plan's stages on one kind of device."""

    plan: Plan
    device: Device = ANY

    def __call__(self, stage: Stage) -> Cost:
        known = self._costs.get(stage.key)
        if known is None:
            known = self._costs[stage.key] = self._estimate(stage)
        return known

    def seconds(self, stage: Stage) -> float:
        """Corrected by what stages of this kind really took here."""
        return self.planned_s(stage) * self.timing.of(stage.kind)

    def planned_s(self, stage: Stage) -> float:
        return self(stage).seconds

    def memory(self, stage: Stage) -> tuple[int | None, int]:
        """-> an estimate, and what the stage cannot do with less."""
        held = self(stage).held
        return (held.estimate, held.weights) if held else (None, 0)

    @cached_property
    def _costs(self) -> dict[str, Cost]:
        return {}

    @cached_property
    def timing(self) -> Timing:
        """What this plan's finished stages took on such a device, over their estimates."""
        timing = Timing()
        for stage in self.plan.stages:
            seconds = measured_s(self.plan.store, stage, self.device.model)
            if seconds is not None:
                timing.add(stage.kind, self.planned_s(stage), seconds)
        return timing

    def _estimate(self, stage: Stage) -> Cost:
        if stage.kind in ("finetune", "distill"):
            return self._training(stage)
        if stage.kind == "teacher_cache":
            return self._cache(stage)
        if stage.kind == "evaluate":
            return self._evaluation(stage)
        return Cost()

    def _training(self, stage: Stage) -> Cost:
        student = self._model(stage.inputs.get("student") or stage.inputs["model"])
        rows = self._rows(stage.inputs["rows"])
        if student is None or rows is None:
            return Cost()
        recipe: Train = stage.settings.recipe  # type: ignore[attr-defined]
        steps = num_steps(rows.rows, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
        share = steps * recipe.batch_size / max(rows.rows, 1)
        tokens, scored = int(rows.tokens * share), int(rows.loss_tokens * share)
        flops = 4.0 * (tokens * student.num_body + scored * student.num_head)
        teacher = self._teacher(stage)
        flops += 2.0 * (tokens * teacher.body + scored * teacher.head)
        trained = _num_trained(recipe, student)
        longest = min(rows.tokens, _longest(stage.inputs["rows"]))
        dtype: str = stage.settings.dtype  # type: ignore[attr-defined]
        held = memory_estimate.training(recipe, student, teacher.loaded, trained, longest, dtype)
        return Cost(tokens, flops, trained * 4, held, self._seconds(flops))

    def _seconds(self, flops: float) -> float:
        return START_S + flops / self.device.flops_per_s

    def _teacher(self, stage: Stage) -> "_Beside":
        """-> how much of a teacher runs beside a training."""
        form = self.plan.cached.get(stage.key)
        teacher = self._model(stage.inputs["teacher"]) if "teacher" in stage.inputs and form != "vector" else None
        if teacher is None:
            return _Beside(0, 0, 0)
        if form == "hidden":
            return _Beside(teacher.num_head, 0, teacher.num_head)
        return _Beside(teacher.num_params, teacher.num_body, teacher.num_head)

    def _cache(self, stage: Stage) -> Cost:
        teacher, rows = self._model(stage.inputs["teacher"]), self._rows(stage.inputs["rows"])
        size = cache_sizes.sizes(stage, self.plan.store)
        if teacher is None or rows is None or size is None:
            return Cost()
        student = self._model(stage.inputs["student"]) if "student" in stage.inputs else None
        share = cache_sizes.share_read(stage.settings.reads, rows)  # type: ignore[attr-defined]
        tokens, scored = int(rows.tokens * share), int(rows.loss_tokens * share)
        heads = teacher.num_head + student.num_head if student else 0  # hidden states alone need neither
        flops = 2.0 * (tokens * teacher.num_body + scored * heads)
        num_weights = teacher.num_params + (student.num_params if student else 0)
        longest = min(rows.tokens, _longest(stage.inputs["rows"]))
        held = memory_estimate.forward(teacher, num_weights, longest, stage.settings.dtype)  # type: ignore[attr-defined]
        return Cost(tokens, flops, size.total, held, self._seconds(flops))

    def _evaluation(self, stage: Stage) -> Cost:
        model = self._model(stage.inputs["model"])
        recipe = stage.settings.recipe  # type: ignore[attr-defined]
        tokens = sum(num_questions(task, recipe.limit) * _size(task)[1] for task in recipe.tasks)
        if model is None:
            return Cost(tokens)
        flops = 2.0 * tokens * (model.num_body + model.num_head)
        held = memory_estimate.forward(model, model.num_params, memory_estimate.LONGEST, recipe.dtype)
        return Cost(tokens, flops, tokens // 10, held, self._seconds(flops))

    def _model(self, fetch: Stage) -> ModelSizes | None:
        return fetched_sizes(self.plan.store, fetch)

    def _rows(self, rows: Stage) -> RowsSizes | None:
        return rows_sizes(self.plan.store, rows)


def _size(task: str) -> tuple[int, int]:
    return TASKS.get(task, UNKNOWN_TASK)


def num_questions(task: str, limit: int | None) -> int:
    """-> how many questions a task puts, as far as known without its data."""
    return min(_size(task)[0], limit or _size(task)[0])


def smallest_visible_difference(num: int, correlation: float = 0.95) -> float:
    """-> 2.80 SE_d: the difference of two accuracies near 0.5 that is seen with 80 % power (two-sided 5 %).

    SE_d = sqrt(2 (1 - r) p (1 - p) / n) of paired answers that correlate by r (Miller 2024, 2411.00640).
    """
    return 2.80 * float((2 * (1 - correlation) * 0.25 / num) ** 0.5)


def _num_trained(recipe: Train, model: ModelSizes) -> int:
    if recipe.lora is None:
        return model.num_params
    # two thin matrices beside each adapted one; an adapted weight is about hidden x hidden (attention) to 4x that
    layers = max(1, model.num_body // (12 * model.hidden**2))
    return layers * len(recipe.lora.target_modules) * recipe.lora.rank * 4 * model.hidden


def _longest(rows: Stage) -> int:
    """-> at most so many tokens in a row, as far as the study says."""
    return int(rows.settings.data.max_length or memory_estimate.LONGEST)  # type: ignore[attr-defined]
