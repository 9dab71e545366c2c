"""Layers laid over each other: the file, an ablation's `set` and a cell -> the complete recipes of one row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import ValidationError

from ablate.core.values import Frozen
from ablate.study.fields import axis_loc
from ablate.study.layer import laid_over
from ablate.study.schema import Data, Distill, Evaluate, Finetune, Study, TeacherOrStudent, Train
from ablate.study.yaml import Loc

Overlay: TypeAlias = dict[str, Any]
"""Some of a study's settings, nested as in the file."""
R = TypeVar("R", bound=Frozen)
T = TypeVar("T", bound=Train)

REHEARSAL_STEPS: Final = 8
REHEARSAL_WARMUP: Final = 2
REHEARSAL_QUESTIONS: Final = 16


@dataclass(frozen=True)
class Setting:
    """What one row is made from: complete recipes, nothing left to look up."""

    pair: str
    dtype: str
    data: Data
    teacher: TeacherOrStudent
    """Without its `finetune`, which is in `finetune_teacher`."""
    student: TeacherOrStudent
    finetune_teacher: Finetune
    finetune_student: Finetune
    distill: Distill
    evaluate: Evaluate


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


def tree(values: Iterable[tuple[Loc, Any]]) -> Overlay:
    """-> an overlay that says each value at its place; what is said of a part lies over what is said of the whole."""
    made: Overlay = {}
    for loc, value in sorted(values, key=lambda item: (len(item[0]), item[0])):
        for key in reversed(loc):
            value = {key: value}
        made = laid_over(made, value)
    return made


def said(overlay: Mapping[str, Any], loc: Loc) -> Any:
    """-> what an overlay says at a place, {} where it says nothing."""
    value: Any = overlay
    for key in loc:
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
    return value


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


class Resolver:
    """Makes the settings of a study's rows; what many rows share is made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.file = overlay_of(study)
        self._locs: dict[str, Loc] = {}
        self._made: dict[tuple[str, str, str], Any] = {}

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
        named = [said(overlay, ("distill", "pair")) for overlay in (cell, over, self.file)]
        return next((name for name in named if isinstance(name, str)), next(iter(self.study.pairs)))

    def setting(self, over: Overlay, cell: Overlay) -> Setting:
        """The ablation's `set` and a cell -> the setting of its row.

        Raises MisfitError.
        """
        pair = self.pair(over, cell)
        layers = (over, cell)
        dtype = said(cell, ("dtype",)) or said(over, ("dtype",)) or self.study.dtype
        return Setting(
            pair=pair,
            dtype=dtype,
            data=self._part("data", pair, layers, Data),
            teacher=self._part("teacher", pair, layers, TeacherOrStudent),
            student=self._part("student", pair, layers, TeacherOrStudent),
            finetune_teacher=self._part("finetune_teacher", pair, layers, Finetune),
            finetune_student=self._part("finetune_student", pair, layers, Finetune),
            distill=self._part("distill", pair, layers, Distill),
            evaluate=self._evaluate(pair, layers, dtype),
        )

    def layers(self, part: str, pair: str, overlays: Iterable[Overlay]) -> list[Any]:
        """-> everything said of one part, later wins."""
        locs = part_layers(part, pair)
        found = [said(overlay, loc) for overlay in overlays for loc in locs]
        if part in ("teacher", "student"):
            return [{name: value for name, value in layer.items() if name != "finetune"} for layer in found]
        return found

    def _part(self, part: str, pair: str, overlays: tuple[Overlay, ...], kind: type[R]) -> R:
        above = self.layers(part, pair, overlays)
        key = (part, pair, repr(above))
        if key not in self._made:
            merged: dict[str, Any] = reduce(laid_over, [*self.layers(part, pair, [self.file]), *above], {})
            try:
                made = kind.model_validate(merged | ({"pair": pair} if part == "distill" else {}))
            except ValidationError as error:
                raise MisfitError(part, pair, merged, error) from error
            self._made[key] = rehearsed(made) if self.study.rehearsal and isinstance(made, Train) else made
        return self._made[key]  # type: ignore[no-any-return]

    def _evaluate(self, pair: str, overlays: tuple[Overlay, ...], dtype: str) -> Evaluate:
        said = self._part("evaluate", pair, overlays, Evaluate)
        key = ("evaluated", dtype, str(id(said)))
        if key not in self._made:
            most = min(REHEARSAL_QUESTIONS, said.limit or REHEARSAL_QUESTIONS) if self.study.rehearsal else said.limit
            self._made[key] = said.model_copy(update={"dtype": said.dtype or dtype, "limit": most})
        return self._made[key]  # type: ignore[no-any-return]


def rehearsed(recipe: T) -> T:
    """-> the recipe at a few optimizer steps."""
    steps = min(REHEARSAL_STEPS, recipe.max_steps or REHEARSAL_STEPS)
    return recipe.model_copy(update={"epochs": None, "max_steps": steps, "warmup_steps": REHEARSAL_WARMUP})


def rehearse(study: Study) -> Study:
    """-> the study at a few steps a training and a few questions a task, under a name of its own."""
    if study.rehearsal:
        return study
    return study.model_copy(update={"rehearsal": True, "name": rehearsal_name(study.name)})


def rehearsal_name(name: str) -> str:
    return f"{name[:54]}-rehearsal"
