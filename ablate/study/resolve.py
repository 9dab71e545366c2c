"""One row's complete recipes: what the file, its ablation's `set` and its cell say, laid over each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import ValidationError

from ablate.core.values import Frozen
from ablate.core.yaml import Loc
from ablate.study.data_settings import Data
from ablate.study.distillation_methods import with_preset
from ablate.study.evaluation_settings import Evaluate
from ablate.study.fields import axis_loc
from ablate.study.overlays import CELL, FILE, SET, Origin, Overlay, is_said, settings_at, stacked, tree
from ablate.study.rehearsal import rehearsed_questions, rehearsed_training
from ablate.study.schema import Student, Study, TeacherOrStudent
from ablate.study.several_teachers import WeightedTeacher
from ablate.study.training_recipes import Distill, Finetune, Train

Overlays: TypeAlias = tuple[Overlay, Overlay, Overlay]
"""What a row is made from: the file's settings, those of its ablation's `set`, those of its cell."""
R = TypeVar("R", bound=Frozen)


class Teacher(NamedTuple):
    """One of the models that a student is distilled from."""

    pair: str
    """Whose teacher it is."""
    model: TeacherOrStudent
    finetune: Finetune | None
    """How it is fine-tuned first; None for a baseline."""
    weight: float
    """Its share among all of the row's."""

    @property
    def state(self) -> Literal["baseline", "finetuned"]:
        return "finetuned" if self.finetune else "baseline"


@dataclass(frozen=True)
class Setting:
    """What one row is made from: complete recipes, nothing left to look up."""

    pair: str
    dtype: str
    data: Data
    teacher: TeacherOrStudent
    """Without its `finetune`, which is in `finetune_teacher`."""
    student: Student
    finetune_teacher: Finetune
    finetune_student: Finetune
    distill: Distill
    evaluate: Evaluate
    teachers: tuple[Teacher, ...]
    """Of the distillation: the pair's own, or those that `distill.teachers` names; each once."""


def distilled_from(recipe: Distill, teachers: Sequence[Teacher]) -> Distill:
    """-> a distillation that names its teachers in this order: none, where one alone is its teacher.

    So that one training has one key, however its teachers were named.
    """
    if not recipe.teachers:
        return recipe
    if len(teachers) == 1:
        (one,) = teachers
        named = {"pair": one.pair, "teacher": one.state}
        return recipe.model_copy(update={"teachers": (), "teacher_mean": "probabilities", **named})
    several = (WeightedTeacher(pair=one.pair, teacher=one.state, weight=one.weight) for one in teachers)
    return recipe.model_copy(update={"teachers": tuple(several)})


def part_layers(part: str, pair: str) -> tuple[Loc, ...]:
    """-> where one part of a Setting is said in the file, later wins; the same in every overlay."""
    role = part.rpartition("_")[2]
    if part.startswith("finetune_"):
        return (("train",), ("finetune",), ("pairs", pair, role, "finetune"))
    if part == "distill":
        return (("train",), ("distill",), ("pairs", pair, "distill"))
    if part == "pair":
        return (("distill", "pair"),)
    return (("pairs", pair, part),) if part in ("teacher", "student") else ((part,),)


def overlay_of(study: Study) -> Overlay:
    """-> the recipes that the file itself says."""
    return study.model_dump(include={"train", "finetune", "distill", "data", "evaluate", "dtype", "pairs"})


class MisfitError(ValueError):
    """Layers that are each right and together make a recipe that is wrong."""

    def __init__(self, part: str, pair: str, merged: dict[str, Any], error: ValidationError) -> None:
        super().__init__(str(error))
        self.part = part
        self.pair = pair
        self.merged = merged
        self.error = error


class RecipeLayer(NamedTuple):
    """What is said of one part of a row's setting in one place."""

    origin: Origin
    settings: Overlay


class Resolver:
    """Makes the settings of a study's rows; what many rows share is made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.file = overlay_of(study)
        self._locs: dict[str, Loc] = {}
        self._recipes: dict[tuple[str, str, str], Any] = {}
        self._file_layers: dict[tuple[str, str], list[RecipeLayer]] = {}

    def loc(self, path: str) -> Loc:
        """-> where the dotted path of an axis or `set` points. Raises ValueError where no row is made of it."""
        if path not in self._locs:
            self._locs[path] = axis_loc(path, self.file)
        return self._locs[path]

    def overlay(self, values: Mapping[str, Any]) -> Overlay:
        """-> dotted paths and their values, nested as in the file."""
        return tree((self.loc(path), value) for path, value in values.items())

    def pair(self, over: Overlay, cell: Overlay) -> str:
        """-> the pair of a row."""
        named = [settings_at(overlay, ("distill", "pair")) for overlay in (cell, over, self.file)]
        return next((name for name in named if isinstance(name, str)), next(iter(self.study.pairs)))

    def setting(self, over: Overlay, cell: Overlay) -> Setting:
        """The ablation's `set` and a cell -> the setting of its row.

        Raises MisfitError.
        """
        pair = self.pair(over, cell)
        overlays = (self.file, over, cell)
        dtype = settings_at(cell, ("dtype",)) or settings_at(over, ("dtype",)) or self.study.dtype
        distill = self._part("distill", pair, overlays, Distill)
        return Setting(
            pair=pair,
            dtype=dtype,
            data=self._part("data", pair, overlays, Data),
            teacher=self._part("teacher", pair, overlays, TeacherOrStudent),
            student=self._part("student", pair, overlays, Student),
            finetune_teacher=self._part("finetune_teacher", pair, overlays, Finetune),
            finetune_student=self._part("finetune_student", pair, overlays, Finetune),
            distill=distill,
            evaluate=self._evaluate(pair, overlays, dtype),
            teachers=self._teachers(distill, pair, overlays),
        )

    def _teachers(self, distill: Distill, pair: str, overlays: Overlays) -> tuple[Teacher, ...]:
        """-> those of a distillation; two that are one model under two names are one, with both their weights."""
        teachers: list[Teacher] = []
        for one in distill.teachers or (WeightedTeacher(pair=pair, teacher=distill.teacher),):
            of_pair = one.pair or pair
            model = self._part("teacher", of_pair, overlays, TeacherOrStudent)
            tuned = one.teacher == "finetuned"
            recipe = self._part("finetune_teacher", of_pair, overlays, Finetune) if tuned else None
            teacher = Teacher(of_pair, model, recipe, one.weight)
            same = next((i for i, other in enumerate(teachers) if _is_same(other, teacher)), None)
            if same is None:
                teachers.append(teacher)
            else:
                teachers[same] = teachers[same]._replace(weight=teachers[same].weight + one.weight)
        return tuple(teachers)

    def layers(self, part: str, pair: str, overlays: Overlays) -> list[RecipeLayer]:
        """-> everything said of one part, later wins."""
        if (part, pair) not in self._file_layers:
            self._file_layers[part, pair] = list(_layers(part, pair, self.file, FILE))
        above = [layer for level in (SET, CELL) for layer in _layers(part, pair, overlays[level], level)]
        layers = [*self._file_layers[part, pair], *above]
        return _with_method(layers) if part == "distill" else layers

    def _part(self, part: str, pair: str, overlays: Overlays, kind: type[R]) -> R:
        locs = part_layers(part, pair)
        above = [settings_at(overlay, loc) for overlay in overlays[1:] for loc in locs]
        key = (part, pair, repr(above))
        if key not in self._recipes:
            layers = self.layers(part, pair, overlays)
            merged = stacked(layer.settings for layer in layers)
            try:
                recipe = kind.model_validate(merged | ({"pair": pair} if part == "distill" else {}))
            except ValidationError as error:
                raise MisfitError(part, pair, merged, error) from error
            self._recipes[key] = (
                rehearsed_training(recipe) if self.study.rehearsal and isinstance(recipe, Train) else recipe
            )
        return self._recipes[key]  # type: ignore[no-any-return]

    def _evaluate(self, pair: str, overlays: Overlays, dtype: str) -> Evaluate:
        recipe = self._part("evaluate", pair, overlays, Evaluate)
        key = ("evaluated", dtype, str(id(recipe)))
        if key not in self._recipes:
            recipe = recipe.model_copy(update={"dtype": recipe.dtype or dtype}).shortest()
            self._recipes[key] = rehearsed_questions(recipe) if self.study.rehearsal else recipe
        return self._recipes[key]  # type: ignore[no-any-return]


def _is_same(one: Teacher, other: Teacher) -> bool:
    unlabelled = {"label": None}
    models = (teacher.model.model_copy(update=unlabelled) for teacher in (one, other))
    return next(models) == next(models) and one.finetune == other.finetune


def _with_method(layers: list[RecipeLayer]) -> list[RecipeLayer]:
    """-> the layers, the uppermost `method` filled in where it is said: over what is below, under what is beside it."""
    place = max((number for number, layer in enumerate(layers) if "method" in layer.settings), default=None)
    if place is None:
        return layers
    layer = layers[place]
    return [*layers[:place], layer._replace(settings=with_preset(layer.settings)), *layers[place + 1 :]]


def _layers(part: str, pair: str, overlay: Overlay, level: int) -> Iterator[RecipeLayer]:
    for loc in part_layers(part, pair):
        if not is_said(overlay, loc):
            continue
        settings = settings_at(overlay, loc)
        if part in ("pair", "dtype"):  # one value, and no mapping
            loc, settings = loc[:-1], {loc[-1]: settings}
        if part in ("teacher", "student"):
            settings = {name: value for name, value in settings.items() if name != "finetune"}
        yield RecipeLayer(Origin(level, loc), settings)
